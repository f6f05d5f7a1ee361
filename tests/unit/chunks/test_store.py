"""A partition on disk: values and the offsets they belong to are one, whatever happens to the process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunks.errors import DiskFailed
from chunks.keys import BEGINNING_KEY, INCOMPLETE_SUFFIX, RESTORING_KEY, position_key
from chunks.store import Store
from tests.kit.stack import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tables" / "by_user-0.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path, block_cache_bytes=2**20).open()
    yield opened
    opened.close()


def test_a_new_store_is_empty_and_knows_no_offsets(store):
    assert store.offset == 0
    assert store.position("orders") is None
    assert store.get(b"ann") is None
    assert store.get_many([]) == []
    assert list(store.scan()) == []


def test_values_and_offset_are_written_together(store):
    store.apply([(b"ann", b"1"), (b"bob", b"2"), (position_key("orders"), b"17")], 5)

    assert store.get_many([b"bob", b"eve", b"ann"]) == [b"2", None, b"1"]
    assert (store.offset, store.position("orders"), store.position("others")) == (5, 17, None)


def test_a_value_of_none_deletes_and_the_last_of_a_batch_counts(store):
    store.apply([(b"ann", b"1"), (b"bob", b"1")], 2)
    store.apply([(b"ann", None), (b"bob", None), (b"bob", b"2"), (b"eve", b"3"), (b"eve", None), (b"none", None)], 8)

    assert list(store.scan()) == [(b"bob", b"2")]
    assert store.offset == 8


def test_empty_keys_empty_values_and_any_bytes_are_kept(store):
    records = [(b"", b"empty"), (b"empty", b""), (b"\x00", b"\x00"), (b"\xfe\xff", b"\xff" * 100_000)]
    store.apply(records, 4)

    assert dict(store.scan()) == dict(records)


def test_a_batch_that_fails_leaves_no_trace(store):
    def broken() -> Iterator[tuple[bytes, bytes]]:
        yield b"ann", b"1"
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        store.apply(broken(), 1)
    assert (store.get(b"ann"), store.offset) == (None, 0)


def test_a_scan_finds_all_keys_of_a_prefix_in_order_and_none_of_the_engines_own(store):
    keys = [b"a", b"ann", b"ann\x00", b"ann\x00\x01", b"ann\x00\xff", b"ann\x01", b"anna", b"b", b"\xfe"]
    store.apply([(key, key) for key in reversed(keys)] + [(position_key("orders"), b"1")], 10)

    assert [key for key, _ in store.scan()] == keys
    assert [key for key, _ in store.scan(b"ann\x00")] == [b"ann\x00", b"ann\x00\x01", b"ann\x00\xff"]
    assert list(store.scan(b"c")) == []
    for prefix in (b"\xff", position_key(""), position_key("orders")):
        assert list(store.scan(prefix)) == list(store.snapshot().scan(prefix)) == []
    assert [key for key, _ in store.scan(b"ann", after=b"ann\x00\x01")] == [b"ann\x00\xff", b"ann\x01", b"anna"]


def test_a_scan_shows_what_was_there_when_it_began(store):
    store.apply([(b"%03d" % number, b"before") for number in range(500)], 500)
    scan = store.scan()
    first = next(scan)
    store.apply([(b"%03d" % number, None) for number in range(500)], 1_000)

    assert [first, *scan] == [(b"%03d" % number, b"before") for number in range(500)]


def test_a_snapshot_shows_the_rows_of_the_time_when_it_was_taken_however_it_is_read(store):
    store.apply([(b"a", b"before"), (b"n1", b"before"), (position_key("orders"), b"1")], 1)
    snapshot = store.snapshot()
    store.apply([(b"a", b"after"), (b"b", b"after"), (b"n1", None), (position_key("orders"), b"2")], 2)

    assert [snapshot.get(key) for key in (b"a", b"b", position_key("orders"))] == [b"before", None, b"1"]
    assert list(snapshot.scan()) == [(b"a", b"before"), (b"n1", b"before")]
    assert list(snapshot.scan(b"n")) == [(b"n1", b"before")]
    assert [store.get(b"a"), list(store.scan(b"n"))] == [b"after", []]


def test_all_of_it_is_there_again_after_closing(store, path):
    store.apply([(b"ann", b"1"), (position_key("orders"), b"9")], 3)
    store.close()

    again = Store(path).open()
    assert (again.get(b"ann"), again.offset, again.position("orders")) == (b"1", 3, 9)
    again.close()


def test_closing_twice_is_closing_once(store):
    store.close()
    store.close()


def test_a_wiped_store_is_as_new_and_stays_so(store, path):
    store.apply([(b"ann", b"1"), (position_key("orders"), b"9")], 3)

    store.wipe()

    assert (list(store.scan()), store.offset, store.position("orders")) == ([], 0, None)
    store.apply([(b"bob", b"2")], 1)
    store.close()
    again = Store(path).open()
    assert (list(again.scan()), again.offset) == ([(b"bob", b"2")], 1)
    again.close()


def test_a_closed_store_can_be_wiped(store):
    store.apply([(b"ann", b"1")], 3)
    store.close()

    store.wipe()

    assert (list(store.scan()), store.offset) == ([], 0)


def test_a_partition_is_at_an_end_only_if_it_is_whole_and_was_compared_with_its_changelog(store):
    whole = [(BEGINNING_KEY, b"id"), (position_key("orders"), b"9")]
    store.write_beginning(b"id", 0)
    store.apply(whole, 3)
    assert not store.is_complete_at(3, "orders"), "it may belong to another changelog"
    store.is_verified = True
    assert [store.is_complete_at(end, "orders") for end in (2, 3, 4)] == [False, True, False]
    store.apply([], 3, 1)
    assert [store.is_complete_at(end, "orders") for end in (2, 3, 4, 5)] == [False, True, True, False], (
        "a marker holds nothing"
    )
    store.apply([], 4)
    assert not store.is_complete_at(5, "orders"), "what follows a marker may hold something"
    for key in (BEGINNING_KEY, position_key("orders")):
        store.apply([(key, None)], 4)
        assert not store.is_complete_at(4, "orders"), key
        store.apply(whole, 4)
        assert store.is_complete_at(4, "orders")
    store.apply([(RESTORING_KEY, b"")], 4)
    assert not store.is_complete_at(4, "orders")


# Each batch replaces all values, so that a half-written one would show. Small buffers make RocksDB flush on its own.
WRITER = """
import sys
from pathlib import Path
import chunks.store
from chunks.keys import BEGINNING_KEY, RESTORING_KEY, position_key
from chunks.store import Store
chunks.store.WRITE_BUFFER_BYTES = 200_000
store = Store(Path(sys.argv[1])).open()
for turn in range(store.offset + 1, 10**9):
    value = b"%d" % turn
    store.apply([(b"%d" % key, value * 20) for key in range(100)] + [(position_key("orders"), value)], turn)
    if turn % 100 == 0:
        print(turn, flush=True)
"""


def test_after_a_kill_values_and_offsets_belong_together(path):
    """Three times a writer that never flushes is killed in mid-write and goes on from what is left."""
    reached = 0
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=ROOT, stdout=subprocess.PIPE) as writer:
            for line in writer.stdout:
                if int(line) >= reached + 300:
                    break
            writer.send_signal(signal.SIGKILL)

        store = Store(path).open()
        offset = store.offset
        assert offset > reached, "RocksDB has flushed at least once"
        assert store.position("orders") == offset
        assert dict(store.scan()) == {b"%d" % key: (b"%d" % offset) * 20 for key in range(100)}
        store.close()
        reached = offset


keys = st.binary(max_size=3).filter(lambda key: not key.startswith(b"\xff"))
batches = st.lists(st.lists(st.tuples(keys, st.none() | st.binary(max_size=3)), max_size=8), max_size=8)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for many examples, each under a prefix of its own."""
    opened = Store(tmp_path_factory.mktemp("store") / "shared.db").open()
    yield opened
    opened.close()


_examples = iter(range(10**9))


@given(batches, keys)
def test_the_store_is_a_dict(shared, batches, prefix):
    own_prefix = b"%09d" % next(_examples)
    model: dict[bytes, bytes | None] = {}
    for offset, batch in enumerate(batches):
        shared.apply([(own_prefix + key, value) for key, value in batch], offset)
        model.update(batch)
        live = {key: value for key, value in model.items() if value is not None}
        rows = [(key.removeprefix(own_prefix), value) for key, value in shared.scan(own_prefix + prefix)]
        assert rows == sorted((key, value) for key, value in live.items() if key.startswith(prefix))
        assert shared.get_many([own_prefix + key for key in model]) == list(model.values())
        assert [shared.get(own_prefix + key) for key in model] == list(model.values())
        assert shared.offset == offset


def test_a_beginning_voids_what_was_there_or_keeps_it_and_knows_its_place(store):
    assert (store.beginning, store.is_incomplete) == (None, False)
    store.apply([(b"ann", b"1"), (position_key("orders"), b"9")], 3)
    store.write_beginning(b"first", 7, keep=True)
    assert (store.beginning, store.offset, store.get(b"ann"), store.position("orders")) == ((b"first", 7), 8, b"1", 9)
    store.write_beginning(b"second" + INCOMPLETE_SUFFIX, 20)
    assert (store.beginning, store.offset, store.is_incomplete) == ((b"second" + INCOMPLETE_SUFFIX, 20), 21, True)
    assert (list(store.scan()), store.position("orders")) == ([], None)


def damage(path: Path) -> None:
    """Overwrite the middle of the files that hold keys and values."""
    files = sorted(path.glob("*.sst"))
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 3 : len(content) // 2] = b"\x5a" * (len(content) // 2 - len(content) // 3)
        file.write_bytes(content)


READS = {
    "get": lambda store: [store.get(b"%05d" % number) for number in range(20_000)],
    "get_many": lambda store: store.get_many([b"%05d" % number for number in range(20_000)]),
    "scan": lambda store: list(store.scan()),
    "scan of a prefix": lambda store: [list(store.scan(b"%02d" % number)) for number in range(20)],
    "scan of a snapshot": lambda store: list(store.snapshot().scan()),
    "get of a snapshot": lambda store: [store.snapshot().get(b"%05d" % number) for number in range(20_000)],
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_damaged_file_is_an_error_and_never_less_than_there_was_and_the_next_start_begins_anew(path, read):
    errors: list[str] = []
    store = Store(path, on_failure=lambda exc: errors.append(str(exc))).open()
    store.apply([(b"%05d" % number, os.urandom(50)) for number in range(20_000)], 5)
    store.close()
    damage(path)
    store.open()

    try:
        read(store)
        pytest.fail("nothing was raised")
    except DiskFailed as exc:
        message = str(exc)
    assert re.search("are damaged .* rebuilds them from their changelog", message)
    assert errors == [message]
    store.close()
    store.open()
    assert (store.offset, list(store.scan())) == (0, [])
    store.apply([(b"ann", b"1")], 1)
    store.close()
    assert dict(store.open().scan()) == {b"ann": b"1"}
    store.close()


@pytest.mark.parametrize("lost", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_store_that_misses_a_file_begins_anew(path, lost):
    store = Store(path).open()
    store.apply([(b"ann", b"1")], 5)
    store.close()
    for file in path.glob(lost):
        file.unlink()

    try:
        store.open()
        assert list(store.scan()) == []
    except DiskFailed:
        store.close()
        store.open()
    assert (store.offset, list(store.scan())) == (0, [])
    store.close()
