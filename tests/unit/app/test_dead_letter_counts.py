"""A worker counts the dead letters that are open, whatever lies in the topic."""

from __future__ import annotations

import math

import pytest
from aiokafka.structs import ConsumerRecord

from app.services import dead_letter_counts
from app.services.dead_letter_counts import DeadLetterCounts
from app.settings import Settings
from app.topics import Topics
from domain.dead_letters import HEADER_PREFIX


def record(offset: int, *headers: tuple[str, bytes | None], at: int = 1_000) -> ConsumerRecord:
    return ConsumerRecord("orders-dead", 1, offset, at, 0, None, None, None, 0, 0, headers)


def letter(offset: int, reason: str, at: int = 1_000) -> ConsumerRecord:
    return record(offset, (f"{HEADER_PREFIX}exception", reason.encode()), at=at)


def settling(offset: int, of: bytes) -> ConsumerRecord:
    return record(offset, ("lately.settled", of), ("lately.done", b"dropped"))


def counts_after(*records: ConsumerRecord) -> DeadLetterCounts:
    letters = DeadLetterCounts(Settings(), Topics(Settings()))
    for applied in records:
        letters.apply(applied)
    return letters


def test_what_is_settled_is_not_open_and_the_oldest_of_the_others_counts():
    letters = counts_after(
        letter(0, "empty", 5_000), letter(1, "empty", 3_000), letter(2, "wrong-key"), settling(3, b"1")
    )
    assert letters.by_reason == [("empty", 1, 5.0), ("wrong-key", 1, 1.0)]
    letters.apply(settling(4, b"2"))
    assert letters.by_reason == [("empty", 1, 5.0), ("wrong-key", 0, math.inf)]


def test_headers_of_any_kind_do_no_harm():
    reason = f"{HEADER_PREFIX}exception"
    letters = counts_after(record(0), record(1, (reason, None)), record(2, (reason, b"\xff")), settling(3, b""),
                   settling(4, b"-1"), settling(5, b"99"), settling(6, b"0"))  # fmt: skip
    assert [count.records for count in letters.by_reason] == [1, 1]


def test_memory_and_reasons_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dead_letter_counts, "MAX_OPEN_LETTERS", 100)
    letters = counts_after(*(letter(number, f"reason {number}") for number in range(150)))
    assert len(letters.by_reason) == dead_letter_counts.MAX_REASONS + 1
    assert (sum(count.records for count in letters.by_reason), letters.is_truncated) == (100, True)
