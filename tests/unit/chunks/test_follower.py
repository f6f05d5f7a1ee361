"""A copy of a table contains what its changelog says, after any restarts of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunks.follower import PartitionCopy, Rows
from chunks.keys import BEGINNING_KEY, RESTORING_KEY, parse_position, position_key
from chunks.records import RecordRange

POSITION = position_key("source")
Record = tuple[bytes, bytes | None]


class DictCopy:
    """Rows in dictionaries: those that count, and those that have been written since the last beginning."""

    def __init__(self) -> None:
        self.visible: dict[bytes, bytes] = {}
        self._next: dict[bytes, bytes] | None = None

    def begin(self, partition: int) -> None:
        self._next = {}

    def apply(self, partition: int, rows: Rows) -> None:
        target = self.visible if self._next is None else self._next
        for key, value in rows:
            if value is None:
                target.pop(key, None)
            else:
                target[key] = value

    def complete(self, partition: int) -> None:
        assert self._next is not None, "rows were complete before a beginning"
        self.visible, self._next = self._next, None


def read(records: Sequence[Record], size: int = 1_000) -> tuple[PartitionCopy, DictCopy]:
    """The state after `records` were applied in ranges of `size`."""
    rows = DictCopy()
    copy = PartitionCopy(0, POSITION, rows)
    for first in range(0, len(records), size):
        part = records[first : first + size]
        numbered = [(first + number, *record) for number, record in enumerate(part)]
        copy.apply(RecordRange(first, first + len(part), numbered))
    return copy, rows


def test_rows_count_once_a_position_follows_them():
    begun: list[Record] = [(BEGINNING_KEY, b"1"), (b"a", b"1")]
    copy, rows = read(begun)
    assert (copy.is_usable, copy.position, rows.visible) == (False, None, {})
    copy, rows = read([*begun, (POSITION, b"7")])
    assert (copy.is_usable, copy.position, rows.visible) == (True, 7, {b"a": b"1"})


def test_while_a_table_is_written_anew_its_former_rows_stay():
    before: list[Record] = [(BEGINNING_KEY, b"1"), (b"a", b"1"), (POSITION, b"7")]
    anew: list[Record] = [(BEGINNING_KEY, b"2"), (b"b", b"2")]
    copy, rows = read([*before, *anew])
    assert (copy.is_usable, rows.visible) == (True, {b"a": b"1"})
    copy, rows = read([*before, *anew, (POSITION, b"8")])
    assert (copy.position, rows.visible) == (8, {b"b": b"2"})


def test_a_table_that_a_dump_replaces_does_not_count():
    marked: list[Record] = [(BEGINNING_KEY, b"1"), (RESTORING_KEY, b"1"), (b"a", b"1"), (POSITION, b"7")]
    assert not read(marked)[0].is_usable
    assert read([*marked, (BEGINNING_KEY, b"2"), (b"a", b"2"), (POSITION, b"7")])[1].visible == {b"a": b"2"}


def test_a_copy_is_complete_from_the_end_at_its_start_on_also_if_a_rebuilt_changelog_is_shorter():
    rows = DictCopy()
    copy = PartitionCopy(0, POSITION, rows)
    copy.expect(6)
    copy.apply(RecordRange(0, 3, [(0, BEGINNING_KEY, b"1"), (1, b"a", b"1"), (2, POSITION, b"7")]))
    assert not copy.is_complete
    copy.apply(RecordRange(3, 6, [(3, b"b", b"1")]))  # a marker of a transaction is at the end
    assert copy.is_complete
    copy.apply(RecordRange(0, 2, [(0, BEGINNING_KEY, b"2"), (1, b"c", b"1")]))
    assert (copy.is_complete, rows.visible) == (True, {b"a": b"1", b"b": b"1"})
    copy.apply(RecordRange(2, 3, [(2, POSITION, b"8")]))
    assert (copy.is_complete, rows.visible, copy.offset) == (True, {b"c": b"1"}, 3)


def test_a_copy_whose_changelog_is_replaced_before_it_was_read_is_complete_once_its_rows_count():
    copy = PartitionCopy(0, POSITION, DictCopy())
    copy.expect(1_000)
    copy.apply(RecordRange(0, 3, [(0, BEGINNING_KEY, b"1"), (1, b"a", b"1"), (2, POSITION, b"7")]))
    assert not copy.is_complete
    copy.apply(RecordRange(0, 2, [(0, BEGINNING_KEY, b"2"), (1, POSITION, b"8")]))
    assert copy.is_complete
    copy.reset()
    copy.expect(2)
    assert not copy.is_complete


RECORDS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.sampled_from([b"1", b"2", None])),
        st.tuples(st.just(POSITION), st.integers(0, 99).map(lambda number: b"%d" % number)),
        st.tuples(st.just(BEGINNING_KEY), st.just(b"id")),
    ),
    max_size=30,
)


@given(RECORDS, st.integers(1, 5))
def test_any_changelog_gives_the_rows_since_the_last_complete_beginning(records: list[Record], size: int):
    expected: dict[bytes, bytes] = {}
    rebuilt: dict[bytes, bytes | None] | None = None
    has_begun = False
    for key, value in records:
        if key == BEGINNING_KEY:
            has_begun, rebuilt = True, {}
        elif not has_begun:
            continue
        elif key == POSITION and rebuilt is not None:
            expected, rebuilt = {name: row for name, row in rebuilt.items() if row is not None}, None
        elif key != POSITION:
            target = expected if rebuilt is None else rebuilt
            target[key] = value
    copy, rows = read(records, size)
    assert rows.visible == {name: row for name, row in expected.items() if row is not None}
    assert copy.offset == len(records)


def test_records_that_the_engine_does_not_write_change_nothing():
    own: list[Record] = [(BEGINNING_KEY, b"1"), (b"a", b"1"), (POSITION, b"7")]
    foreign: list[Any] = [(None, b"x"), (None, None), (BEGINNING_KEY, None), (b"\xffother", b"x")]
    copy, rows = read([*own[:2], *foreign, *own[2:], *foreign])
    assert (copy.is_usable, copy.position, rows.visible) == (True, 7, {b"a": b"1"})


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"7_0", b" 7", b"9" * 5_000, b"\xff"])
def test_a_position_that_is_no_offset_is_no_position(value: bytes):
    assert parse_position(value) is None
    copy, _ = read([(BEGINNING_KEY, b"1"), (b"a", b"1"), (POSITION, value)])
    assert (copy.is_usable, copy.position) == (False, None)
