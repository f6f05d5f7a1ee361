"""Output formats of a report: terminal table, CSV, JSON and HTML; equal reports give equal bytes."""

from __future__ import annotations

import re
from decimal import Decimal
from importlib.resources import files
from typing import Any

import msgspec
from jinja2 import Environment

from commands.report import model
from commands.report.model import TEXT, Cells, CellValue, Report, ReportColumn, column_index

TABLE, CSV, JSON, HTML = FORMATS = ("table", "csv", "json", "html")

#: Longer names are cut in a terminal; more bars than MAX_BARS cannot be distinguished.
NAME_CHARACTERS, MAX_BARS, RANKED_BARS = 60, 1_000, 20
#: Length of the longest bar: vertical bars, horizontal bars.
HEIGHT, WIDTH = 100, 260

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
#: A spreadsheet evaluates a cell that begins with one of these characters.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def encode(report: Report, form: str) -> bytes:
    """The report in one of FORMATS, as UTF-8."""
    if form == JSON:
        return model.encode(report)
    text_of = {TABLE: _table, CSV: _csv, HTML: _page}[form]
    return text_of(report).encode(errors="replace")


def header_fields(report: Report) -> list[tuple[str, str]]:
    """Name and text of each header field, for people."""
    fields = msgspec.to_builtins(report.header)
    return [(name, str(value)) for name, value in fields.items() if value is not None]


def _table(report: Report) -> str:
    rows = [[column.name for column in report.columns]]
    rows += [[_cell(value) for value in row] for row in report.rows]
    rows.append(_totals(report))
    widths = [max(len(row[at]) for row in rows) for at in range(len(report.columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if column.kind == TEXT else cell.rjust(width)
            for cell, width, column in zip(row, widths, report.columns, strict=True)
        ).rstrip()
        for row in rows
    ]
    rule = "  ".join("-" * width for width in widths)
    header = [f"{name:16}{value}" for name, value in header_fields(report)]
    return "\n".join([*header, "", lines[0], rule, *lines[1:-1], rule, lines[-1], ""])


def _cell(value: CellValue) -> str:
    if value is None:
        return "-"
    text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(value))
    return text if len(text) <= NAME_CHARACTERS else f"{text[: NAME_CHARACTERS - 1]}…"


def _totals(report: Report) -> list[str]:
    cells = [
        "" if column.kind == TEXT else _cell(value) for column, value in zip(report.columns, report.total, strict=True)
    ]
    if report.columns[0].kind == TEXT:
        cells[0] = "total"
    return cells


def _csv(report: Report) -> str:
    lines = [f"# {name}: {value}" for name, value in header_fields(report)]
    lines.append(",".join(column.name for column in report.columns))
    for row in report.rows:
        lines.append(",".join(_field(column, value) for column, value in zip(report.columns, row, strict=True)))
    return "\n".join([*lines, ""])


def _field(column: ReportColumn, value: CellValue) -> str:
    """Quote text, so that it differs from a missing value and from a comment (csv.writer does not).

    An apostrophe keeps a spreadsheet from evaluating text.
    """
    if value is None:
        return ""
    text = str(value)
    if column.kind == TEXT and text.startswith(_FORMULA_STARTS):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if column.kind == TEXT else text


def _page(report: Report) -> str:
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files(__package__).joinpath("page.html").read_text()
    )
    return template.render(
        report=report,
        header=dict(header_fields(report)),
        charts=_charts(report),
        kinds=[column.kind for column in report.columns],
    )


def _charts(report: Report) -> list[dict[str, Any]]:
    """The charts of a report: two measures over time, or the ranked measure of products and payment methods."""
    is_ranked = report.header.limit is not None
    rows = report.rows[:RANKED_BARS] if is_ranked else report.rows
    if not rows or len(rows) > MAX_BARS or report.columns[0].kind != TEXT or (is_ranked and report.header.by):
        return []
    if report.header.rank is not None:
        return [_chart(report, report.header.rank, rows, WIDTH)]
    second = "customers" if report.header.report == "customers" else "orders"
    return [_chart(report, name, rows, HEIGHT) for name in ("revenue", second)]


def _chart(report: Report, name: str, rows: list[Cells], longest: int) -> dict[str, Any]:
    index = column_index(report, name)
    values = [Decimal(str(row[index])) for row in rows]
    maximum = max(values)
    bars = [
        {"name": row[0], "value": row[index], "place": number, "length": _length(value, maximum, longest)}
        for number, (row, value) in enumerate(zip(rows, values, strict=True))
    ]
    return {"of": name, "lying": longest == WIDTH, "bars": bars, "most": rows[values.index(maximum)][index]}


def _length(value: Decimal, maximum: Decimal, longest: int) -> Decimal:
    if value <= 0:
        return Decimal(0)
    return max((value * longest / maximum).quantize(Decimal("0.1")), Decimal("0.5"))
