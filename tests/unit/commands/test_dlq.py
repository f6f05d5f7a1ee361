"""Dead letters are read whatever their headers contain: any producer can write to the topic."""

from __future__ import annotations

import pytest
from aiokafka.structs import ConsumerRecord

from app.kafka.dead_letter_topic import ACTION_HEADER, SETTLED_HEADER, parse_letter, retry_obstacle, settled_offset
from domain.dead_letters import HEADER_PREFIX


def record(*headers: tuple[str, bytes | None]) -> ConsumerRecord:
    return ConsumerRecord("orders-dead", 1, 5, 1_000, 0, b"ann", b"{", None, 3, 1, headers)


def test_a_record_that_settles_another_names_its_offset():
    assert settled_offset(record((SETTLED_HEADER, b"4"), (ACTION_HEADER, b"dropped"))) == 4
    assert settled_offset(record((SETTLED_HEADER, b"9223372036854775807"))) == 2**63 - 1
    assert settled_offset(record((f"{HEADER_PREFIX}exception", b"empty"))) is None
    assert settled_offset(record()) is None


@pytest.mark.parametrize("value", [b"", b"-1", b"four", b"4.0", b" 4", b"\xff", b"9" * 5_000])
def test_a_header_that_is_not_an_offset_settles_nothing(value: bytes):
    assert settled_offset(record((SETTLED_HEADER, value))) == -1


def test_a_header_without_a_value_settles_nothing_and_is_a_dead_letter():
    assert settled_offset(record((SETTLED_HEADER, None))) is None


def test_any_headers_make_a_dead_letter():
    assert parse_letter(record()).reason == "unknown"
    broken = parse_letter(
        record(
            (f"{HEADER_PREFIX}exception", None), (f"{HEADER_PREFIX}message", b"\xff"), (f"{HEADER_PREFIX}offset", b"x")
        )
    )
    assert (broken.id, broken.reason, broken.message, broken.offset) == ("1@5", "unknown", "\ufffd", "x")


@pytest.mark.parametrize("value", [b"2", b"-1", b"", b"x", b"01", "٣".encode(), None])
def test_a_dead_letter_of_a_missing_partition_is_not_retried(value: bytes | None):
    letter = parse_letter(record((f"{HEADER_PREFIX}topic", b"orders"), (f"{HEADER_PREFIX}partition", value)))
    assert retry_obstacle(letter, "orders", partitions=2).startswith("orders has no partition ")


def test_a_dead_letter_of_orders_is_retried():
    letter = parse_letter(record((f"{HEADER_PREFIX}topic", b"orders"), (f"{HEADER_PREFIX}partition", b"1")))
    assert retry_obstacle(letter, "orders", partitions=2) is None
