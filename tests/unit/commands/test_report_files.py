"""A report looks the same each time, in every format, and says what was restated since an earlier one."""

from __future__ import annotations

import csv
import json
import sys
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from app.errors import BadReport
from commands.report import archive, atomic_file, formats, model
from commands.report.command import report as command
from commands.report.model import COUNT, MONEY, TEXT, Header, Report, ReportColumn
from commands.report.restatement import only_changes, restate

NASTY = '<script>alert("x")</script>,#\x1b[31m\x00'


def report(rows: list[list], *, limit: int | None = 3, by: str | None = None, as_of: str = "0:9", **fields) -> Report:
    """A report of products or, without a limit, of payment methods; rows are name, purchases, revenue."""
    columns = [ReportColumn("product_name" if limit else "payment_method", TEXT), ReportColumn("purchases", COUNT),
               ReportColumn("revenue", MONEY)]  # fmt: skip
    if by:
        columns.insert(0, ReportColumn(by, TEXT))
    header = Header(
        report="products" if limit else "payments", since="2026-01-31T00:00:00Z", until="2026-02-01T00:00:00Z",
        tz="UTC", by=by, rank="revenue" if limit else None, limit=limit, source="log", as_of=as_of, events=12,
        unreadable=1,
        purchases=sum(row[-2] for row in rows), rows=len(rows),
    )  # fmt: skip
    total = [*[None] * (2 if by else 1), header.purchases, str(sum((Decimal(row[-1]) for row in rows), Decimal(0)))]
    return msgspec.structs.replace(Report(model.FORMAT, header, columns, rows, total), **fields)


ONE = report([["tea", 3, "30.00"], [NASTY, 2, "5.0000000001"]])


def test_json_is_the_whole_report_and_reads_back():
    document = formats.encode(ONE, "json")
    assert model.decode(document, "x.json") == ONE
    said = json.loads(document)
    assert said["header"]["as_of"] == "0:9"
    assert said["header"]["from"] == "2026-01-31T00:00:00Z"
    assert said["rows"][0] == {"product_name": "tea", "purchases": 3, "revenue": "30.00"}


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"columns": [], "rows": [], "total": {}}', b"\xff", b"null"])
def test_what_is_no_report_is_refused_by_name(document: bytes):
    with pytest.raises(BadReport, match=r"x\.json"):
        model.decode(document, "x.json")
    newer = json.loads(formats.encode(ONE, "json"))
    with pytest.raises(BadReport, match="format 2"):
        model.decode(json.dumps({**newer, "format": 2}).encode(), "x.json")


def test_csv_has_the_header_as_comments_and_every_text_in_quotes():
    plain, none = (
        report([["tea", 1, "1.00"], ["#1", 1, "1.00"]]),
        report([[None, 1, "1.00"], ["", 1, "1.00"]], limit=None),
    )
    lines = formats.encode(plain, "csv").decode().splitlines()
    assert "# as_of: 0:9" in lines
    assert "# rows: 2" in lines
    body = [line for line in lines if not line.startswith("#")]
    assert body == ["product_name,purchases,revenue", '"tea",1,1.00', '"#1",1,1.00']
    assert formats.encode(none, "csv").decode().splitlines()[-2:] == [",1,1.00", '"",1,1.00']
    text, nasty = formats.encode(ONE, "csv").decode(), NASTY
    if sys.version_info < (3, 11):  # its reader refuses this character
        text, nasty = text.replace("\0", ""), nasty.replace("\0", "")
    *_, last = csv.reader(line for line in text.splitlines() if not line.startswith("#"))
    assert last == [nasty, "2", "5.0000000001"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_cell_of_csv_is_no_formula(name: str):
    assert f'"\'{name}",1,1.00' in formats.encode(report([[name, 1, "1.00"]]), "csv").decode()


def test_a_table_cannot_command_the_terminal_and_a_page_runs_nothing():
    table = formats.encode(ONE, "table").decode()
    assert "\x1b" not in table
    assert "\\x1b[31m" in table
    page = formats.encode(ONE, "html").decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<rect") == 2
    assert 'width="260.0"' in page


@pytest.mark.parametrize("form", formats.FORMATS)
def test_the_same_report_gives_the_same_bytes(form: str):
    assert formats.encode(ONE, form) == formats.encode(model.decode(model.encode(ONE), "a copy"), form)


def test_what_was_restated_is_the_difference_to_the_earlier_report():
    then = report([["tea", 3, "30.00"], ["pot", 1, "9.00"]], limit=None, as_of="0:5")
    now = report([["tea", 2, "25.50"], ["cup", 1, "1.00"]], limit=None)
    made = restate(now, then)
    assert made.rows == [
        ["tea", 2, "25.50", -1, "-4.50"],
        ["cup", 1, "1.00", 1, "1.00"],
        ["pot", 0, "0.00", -1, "-9.00"],
    ]
    assert made.total == [None, 3, "26.50", -1, "-12.50"]
    assert (made.header.as_of, made.header.compared_with, made.header.rows) == ("0:9", "0:5", 3)
    # What was restated can be compared again.
    again = restate(now, restate(now, then))
    assert [row[-2:] for row in again.rows] == [[0, "0.00"]] * 2 + [[0, "0.00"]]
    assert only_changes(again).rows == []


def test_behind_a_limit_nothing_is_said_of_what_the_other_report_may_have_had():
    cut = report([["a", 3, "3.00"], ["b", 2, "2.00"]], limit=2)
    other = report([["a", 3, "3.00"], ["c", 2, "2.50"]], limit=2)
    assert restate(other, cut).rows == [
        ["a", 3, "3.00", 0, "0.00"], ["c", 2, "2.50", None, None], ["b", 0, "0.00", None, None],
    ]  # fmt: skip


def test_what_is_gone_stands_in_its_own_day():
    then = report([["2026-01-31", "a", 1, "1.00"], ["2026-02-01", "a", 1, "1.00"]], by="day")
    now = report([["2026-02-01", "a", 1, "1.00"]], by="day")
    assert [row[:2] + row[-2:] for row in restate(now, then).rows] == [
        ["2026-01-31", "a", -1, "-1.00"], ["2026-02-01", "a", 0, "0.00"],
    ]  # fmt: skip


def test_reports_of_different_things_are_not_compared():
    other = msgspec.structs.replace(ONE, header=msgspec.structs.replace(ONE.header, tz="Europe/Berlin"))
    with pytest.raises(BadReport, match="differ in tz: Europe/Berlin in the earlier one, UTC in the later one"):
        restate(ONE, other)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path):
    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(BadReport, match="No space"):
        atomic_file.write(tmp_path / "out", fails, force=True)
    assert list(tmp_path.iterdir()) == []
    atomic_file.write(tmp_path / "out", lambda path: path.write_bytes(b"one"), force=False)
    with pytest.raises(BadReport, match="--force"):
        atomic_file.write(tmp_path / "out", lambda path: path.write_bytes(b"two"), force=False)
    atomic_file.write(tmp_path / "out", lambda path: path.write_bytes(b"three"), force=True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out", b"three")]


def test_kept_reports_are_listed_shown_and_compared(tmp_path: Path):
    (tmp_path / "one.json").write_bytes(formats.encode(ONE, "json"))
    two = report([["tea", 2, "20.00"], [NASTY, 2, "5.0000000001"]], as_of="0:11")
    (tmp_path / "two.json").write_bytes(formats.encode(two, "json"))
    (tmp_path / "other.json").write_text("{}")
    assert [path.name for path, _ in archive.stored_reports(tmp_path)] == ["one.json", "two.json"]

    def run(*words: object) -> tuple[int, str]:
        done = CliRunner().invoke(command, [str(word) for word in words])
        return done.exit_code, done.output if done.exception is None else f"{done.output}{done.exception}"

    code, said = run("list", tmp_path)
    assert (code, said.count("\n")) == (0, 2)
    code, said = run("list", tmp_path, "--json")
    assert [json.loads(line)["as_of"] for line in said.splitlines()] == ["0:9", "0:11"]
    code, said = run("show", tmp_path / "one.json", "--format", "csv")
    assert (code, said.encode()) == (0, formats.encode(ONE, "csv"))
    code, said = run("show", tmp_path / "one.json", "--out", tmp_path / "one.html")
    assert (tmp_path / "one.html").read_bytes() == formats.encode(ONE, "html")
    code, said = run("diff", tmp_path / "one.json", tmp_path / "two.json")
    assert code == 3
    assert "-10.00" in said
    assert run("diff", tmp_path / "one.json", tmp_path / "one.json")[0] == 0


def test_where_nothing_can_be_written_is_said_before_anything_is_read(tmp_path: Path):
    (tmp_path / "there").touch()
    atomic_file.require_writable(tmp_path / "there", force=True)
    atomic_file.require_writable(tmp_path / "new", force=False)
    bad = {"there": "--force", "no/such/folder": "is not a folder", ".": "is a folder", "there/x": "is not a folder"}
    for name, cause in bad.items():
        with pytest.raises(BadReport, match=cause):
            atomic_file.require_writable(tmp_path / name, force=False)
    # Not even root may write there.
    with pytest.raises(BadReport, match="cannot be written"):
        atomic_file.require_writable(Path("/proc/report.json"), force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
