"""Dead letters are read whatever their headers say: anyone can write to the topic."""

from __future__ import annotations

import pytest
from aiokafka.structs import ConsumerRecord

from app.kafka.dead_letter_topic import DONE, SETTLED, letter_of, obstacle, settles
from domain.dead_letters import PREFIX


def record(*headers: tuple[str, bytes | None]) -> ConsumerRecord:
    return ConsumerRecord("orders-dead", 1, 5, 1_000, 0, b"ann", b"{", None, 3, 1, headers)


def test_a_record_that_settles_another_names_its_offset():
    assert settles(record((SETTLED, b"4"), (DONE, b"dropped"))) == 4
    assert settles(record((SETTLED, b"9223372036854775807"))) == 2**63 - 1
    assert settles(record((f"{PREFIX}exception", b"empty"))) is None
    assert settles(record()) is None


@pytest.mark.parametrize("said", [b"", b"-1", b"four", b"4.0", b" 4", b"\xff", b"9" * 5_000])
def test_what_is_no_offset_settles_nothing(said: bytes):
    assert settles(record((SETTLED, said))) == -1


def test_a_header_without_a_value_settles_nothing_and_is_a_dead_letter():
    assert settles(record((SETTLED, None))) is None


def test_a_dead_letter_is_one_whatever_its_headers_say():
    assert letter_of(record()).reason == "unknown"
    broken = letter_of(record((f"{PREFIX}exception", None), (f"{PREFIX}message", b"\xff"), (f"{PREFIX}offset", b"x")))
    assert (broken.id, broken.reason, broken.message, broken.offset) == ("1@5", "unknown", "\ufffd", "x")


@pytest.mark.parametrize("said", [b"2", b"-1", b"", b"x", b"01", "٣".encode(), None])
def test_a_dead_letter_of_a_partition_that_is_none_is_not_retried(said: bytes | None):
    letter = letter_of(record((f"{PREFIX}topic", b"orders"), (f"{PREFIX}partition", said)))
    assert obstacle(letter, "orders", partitions=2).startswith("orders has no partition ")


def test_a_dead_letter_of_orders_is_retried():
    letter = letter_of(record((f"{PREFIX}topic", b"orders"), (f"{PREFIX}partition", b"1")))
    assert obstacle(letter, "orders", partitions=2) is None
