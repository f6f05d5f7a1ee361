"""A dead letter says where it came from and why, and never grows beyond what Kafka takes."""

from __future__ import annotations

from datetime import datetime, timezone

import msgspec
import pytest

from domain import dead_letters
from domain.errors import UnreadableEvent
from domain.events import read_document
from tests.kit.makers import event

# Room that the headers may take beside a record that was just small enough for its own topic.
ROOM = 16_384


def make_headers(reason: UnreadableEvent) -> dict[str, bytes]:
    """The headers of a record that failed for `reason`."""
    now = datetime(2026, 1, 31, 8, 0, 0, 5, tzinfo=timezone.utc)
    return dict(dead_letters.build_headers(reason, topic="orders", partition=3, offset=2**40, now=now))


def refusal(value: bytes) -> UnreadableEvent:
    """The error that reading `value` raises."""
    with pytest.raises(UnreadableEvent) as caught:
        read_document(value)
    return caught.value


def test_a_dead_letter_says_where_it_came_from_and_why():
    headers = make_headers(UnreadableEvent("broken-rule", "price must be …"))

    stacktrace = headers.pop("__lately.errors.stacktrace")
    assert b"UnreadableEvent: price must be" in stacktrace
    assert headers == {
        "__lately.errors.topic": b"orders",
        "__lately.errors.partition": b"3",
        "__lately.errors.offset": b"1099511627776",
        "__lately.errors.exception": b"broken-rule",
        "__lately.errors.message": "price must be …".encode(),
        "__lately.errors.attempts": b"1",
        "__lately.errors.first_failed_at": b"2026-01-31T08:00:00.000005Z",
    }


def test_the_stacktrace_leads_to_the_rule():
    headers = make_headers(refusal(b"not an event"))

    assert b"read_document" in headers["__lately.errors.stacktrace"]


@pytest.mark.parametrize("field", ["type", "dataschema"])
@pytest.mark.parametrize("text", ["x" * 900_000, "\x01" * 150_000], ids=["letters", "controls"])
def test_headers_stay_small_however_large_what_they_quote(field, text):
    reason = refusal(msgspec.json.encode(event(**{field: text})))

    assert sum(len(name) + len(value) for name, value in make_headers(reason).items()) < ROOM
