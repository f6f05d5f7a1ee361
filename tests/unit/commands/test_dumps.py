"""A dump is whole or refused, a digest tells what differs, and a restore writes exactly that."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadDump
from app.topics import DUMPED_TABLES
from commands.tables.dump import group_by_size
from commands.tables.dump_check import require_restorable
from commands.tables.dump_file import (
    FORMAT,
    DumpHead,
    PairsFrame,
    PartitionSummary,
    RecordsFrame,
    open_dump,
    read_frames,
    verify_dump,
)
from commands.tables.restore import diff_pairs
from domain.digests import PartitionDigest
from domain.errors import LatelyError
from domain.totals import Totals, decode_partial, encode_partial, encode_totals, merge_partials

contents = st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=3), max_size=12)
PAIRS = [(b"ann", b"1" * 50), (b"bob", b"2")]


def digest(table: str, pairs: list[tuple[bytes, bytes]]) -> str:
    made = PartitionDigest(table)
    for pair in pairs:
        made.add(*pair)
    return made.hexdigest()


def dump(path: Path, pairs: list = PAIRS, keys: int = 2, number: int = FORMAT, table: str = "by_user") -> Path:
    """A dump of one partition, that says it has `keys`."""
    with open_dump(path) as writer:
        part = PartitionSummary("by_user", 0, 7, keys, digest("by_user", PAIRS))
        writer.put(DumpHead(number, "shop", 1, "2026-01-31T00:00:00Z", [part]))
        writer.put(PairsFrame(table, 0, pairs))
        writer.put(RecordsFrame("purchase_changes", 0, [(None, b"x", [("name", b"1")])]))
    return path


def test_what_is_written_is_read(tmp_path: Path):
    path = dump(tmp_path / "dump")
    assert verify_dump(path).positions("by_user") == {0: 7}
    assert [one.pairs for one in read_frames(path) if isinstance(one, PairsFrame)] == [PAIRS]
    records = [frame.records for frame in read_frames(path) if isinstance(frame, RecordsFrame)]
    assert records == [[(None, b"x", [("name", b"1")])]]
    assert (path.stat().st_mode & 0o777, [one.name for one in tmp_path.iterdir()]) == (0o600, ["dump"])


def test_every_bit_and_every_length_counts(tmp_path: Path):
    path, broken = dump(tmp_path / "dump"), tmp_path / "broken"
    whole = path.read_bytes()
    plain = gzip.decompress(whole)
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [gzip.compress(plain[:length], 1) for length in range(0, len(plain), 3)]
    damaged += [gzip.compress(plain[:at] + bytes([plain[at] ^ 1]) + plain[at + 1 :], 1) for at in range(len(plain))]
    damaged += [gzip.compress(plain + b"\x00", 1), b"no dump", bytes(1000)]
    for content in damaged:
        broken.write_bytes(content)
        with pytest.raises(BadDump, match=r"use another dump|another version"):
            verify_dump(broken)


def test_a_dump_that_is_not_what_it_says_is_refused(tmp_path: Path):
    with pytest.raises(BadDump, match="differs from its digest"):
        verify_dump(dump(tmp_path / "dump", keys=3))
    with pytest.raises(BadDump, match="differs from its digest"):
        verify_dump(dump(tmp_path / "dump", PAIRS[::-1]))
    with pytest.raises(BadDump, match="contains a partition that is missing in its head"):
        verify_dump(dump(tmp_path / "dump", table="baskets"))
    with pytest.raises(BadDump, match="another version"):
        verify_dump(dump(tmp_path / "dump", number=FORMAT + 1))
    with pytest.raises(BadDump, match="nothing does not exist"):
        verify_dump(tmp_path / "nothing")
    with pytest.raises(LatelyError, match="cannot be written"):
        dump(tmp_path / "nowhere" / "dump")


def test_a_dump_that_fails_in_the_middle_leaves_the_one_before(tmp_path: Path):
    path = dump(tmp_path / "dump")
    before = path.read_bytes()
    with pytest.raises(KeyError), open_dump(path) as writer:
        writer.put(object())
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])


@given(contents, contents)
def test_a_restore_writes_what_differs_and_nothing_else(wanted, found):
    written = list(diff_pairs(iter(sorted(wanted.items())), sorted(found.items())))
    after = {**found, **dict(written)}
    assert {key: value for key, value in after.items() if value is not None} == wanted
    assert len(written) == len(set(wanted.items()) ^ set(found.items())) - len(
        {key for key in wanted.keys() & found.keys() if wanted[key] != found[key]}
    )


@given(contents, contents)
def test_digests_are_equal_where_keys_and_values_are(one, other):
    one, other = sorted(one.items()), sorted(other.items())
    assert (digest("by_user", one) == digest("by_user", other)) == (one == other)


def test_totals_by_product_are_the_same_at_whatever_offsets_they_were_told():
    def value(*partials: tuple[int, int, str]) -> bytes:
        told = [
            decode_partial(encode_partial("tea", number, at, Totals(1, Decimal(price))))
            for number, at, price in partials
        ]
        return merge_partials(None, told)

    one = digest("by_product", [(b"tea", value((0, 7, "1.50"), (1, 9, "2")))])
    assert one == digest("by_product", [(b"tea", value((1, 12, "2"), (0, 8, "1.50")))])
    assert one != digest("by_product", [(b"tea", value((0, 7, "1.50"), (1, 9, "3")))])
    assert one != digest("by_product", [(b"tea", value((0, 7, "1.50")))])


@given(st.lists(st.tuples(st.binary(max_size=3), st.none() | st.binary(max_size=3))))
def test_groups_hold_all_in_order(pairs):
    assert [pair for some in group_by_size(pairs) for pair in some] == pairs


def complete_head(**changed: object) -> DumpHead:
    """The head of a dump of all tables, with two partitions."""
    parts = [PartitionSummary(table, number, 0, 0, "") for table in DUMPED_TABLES for number in range(2)]
    return DumpHead(**({"format": FORMAT, "app_id": "shop", "partitions": 2, "made_at": "", "parts": parts} | changed))


def test_a_complete_dump_can_be_restored():
    totals = encode_totals(Totals(1, Decimal("1.50")))
    frames = [
        PairsFrame("product_partials", 0, [(b"tea", totals)]),
        RecordsFrame("co_purchases", 1, [(b"tea", b"x", [])]),
    ]
    require_restorable(Path("dump"), complete_head(), frames)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        complete_head().parts[:-1],
        [*complete_head().parts, complete_head().parts[0]],
        [*complete_head().parts[:-1], PartitionSummary("../../x", 0, 0, 0, "")],
        [*complete_head().parts[:-1], PartitionSummary("by_user", 2, 0, 0, "")],
        [*complete_head().parts[:-1], complete_head().parts[0]],
    ],
    ids=["none", "one missing", "one twice", "a path", "no such partition", "one instead of another"],
)
def test_a_dump_without_each_partition_is_refused_before_anything_is_written(parts: list[PartitionSummary]):
    with pytest.raises(BadDump, match="does not contain each of the 2 partitions"):
        require_restorable(Path("dump"), complete_head(parts=parts), [])


def test_a_position_that_is_no_offset_is_refused():
    for position in (-1, 2**63):
        parts = [PartitionSummary(part.table, part.partition, position, 0, "") for part in complete_head().parts]
        with pytest.raises(BadDump, match="no offset"):
            require_restorable(Path("dump"), complete_head(parts=parts), [])


@pytest.mark.parametrize(
    "frame",
    [
        RecordsFrame("orders", 0, []),
        RecordsFrame("__class__", 0, []),
        RecordsFrame("co_purchases", 2, []),
        RecordsFrame("co_purchases", -1, []),
        PairsFrame("by_user", 0, [(b"\xffbeginning", b"x")]),
        PairsFrame("by_user", 0, [(b"", b"x")]),
        PairsFrame("product_partials", 0, [(b"tea", b"no total")]),
        PairsFrame("product_partials", 0, [(b"\xc3\x28", encode_totals(Totals(1, Decimal(1))))]),
    ],
)
def test_content_that_no_dump_contains_is_refused(frame):
    with pytest.raises(BadDump, match=r"dump contains .*: use another dump"):
        require_restorable(Path("dump"), complete_head(), [frame])


def test_a_deeply_nested_frame_is_no_dump(tmp_path: Path):
    content = b"\x92\xa4head" + b"\x91" * 200_000
    path = tmp_path / "dump"
    path.write_bytes(gzip.compress(len(content).to_bytes(4, "big") + content))
    with pytest.raises(BadDump, match="not a dump of tables"):
        verify_dump(path)
