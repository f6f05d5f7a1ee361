"""Output formats of a report: terminal table, CSV, JSON and HTML; equal reports give equal bytes."""

from __future__ import annotations

import re
from decimal import Decimal
from importlib.resources import files

import msgspec
from jinja2 import Environment

from commands.report import model
from commands.report.model import TEXT, Column, Report, Row, Value, place

TABLE, CSV, JSON, HTML = FORMATS = ("table", "csv", "json", "html")

#: Longer names are cut in a terminal; more bars than that cannot be told apart.
NAME_CHARACTERS, MOST_BARS, RANKED_BARS = 60, 1_000, 20
#: How long the longest bar is, where bars stand and where they lie.
HEIGHT, WIDTH = 100, 260

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def encode(report: Report, form: str) -> bytes:
    """The report in one of FORMATS, as UTF-8."""
    if form == JSON:
        return model.encode(report)
    text_of = {TABLE: _table, CSV: _csv, HTML: _page}[form]
    return text_of(report).encode(errors="replace")


def headline(report: Report) -> list[tuple[str, str]]:
    """What the header says, for people."""
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
    said = [f"{name:16}{value}" for name, value in headline(report)]
    return "\n".join([*said, "", lines[0], rule, *lines[1:-1], rule, lines[-1], ""])


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", str(value))
    return text if len(text) <= NAME_CHARACTERS else f"{text[: NAME_CHARACTERS - 1]}…"


def _totals(report: Report) -> list[str]:
    cells = [
        "" if column.kind == TEXT else _cell(value) for column, value in zip(report.columns, report.total, strict=True)
    ]
    if report.columns[0].kind == TEXT:
        cells[0] = "total"
    return cells


def _csv(report: Report) -> str:
    lines = [f"# {name}: {value}" for name, value in headline(report)]
    lines.append(",".join(column.name for column in report.columns))
    for row in report.rows:
        lines.append(",".join(_field(column, value) for column, value in zip(report.columns, row, strict=True)))
    return "\n".join([*lines, ""])


def _field(column: Column, value: Value) -> str:
    """Text is quoted, so that it is neither taken for no value nor for a comment (csv.writer would not say so)."""
    if value is None:
        return ""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if column.kind == TEXT else text


def _page(report: Report) -> str:
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files(__package__).joinpath("page.html").read_text()
    )
    return template.render(
        report=report, header=dict(headline(report)), charts=_charts(report), kinds=[one.kind for one in report.columns]
    )


def _charts(report: Report) -> list[dict]:
    """What is drawn: of periods two measures beside time, of products and payment methods what they are ranked by."""
    ranked = report.header.limit is not None
    rows = report.rows[:RANKED_BARS] if ranked else report.rows
    if not rows or len(rows) > MOST_BARS or report.columns[0].kind != TEXT or (ranked and report.header.by):
        return []
    if ranked:
        return [_chart(report, report.header.rank, rows, WIDTH)]
    second = "customers" if report.header.report == "customers" else "orders"
    return [_chart(report, name, rows, HEIGHT) for name in ("revenue", second)]


def _chart(report: Report, name: str, rows: list[Row], longest: int) -> dict:
    at = place(report, name)
    values = [Decimal(row[at]) for row in rows]
    most = max(values)
    bars = [
        {"name": row[0], "value": row[at], "place": number, "length": _length(value, most, longest)}
        for number, (row, value) in enumerate(zip(rows, values, strict=True))
    ]
    return {"of": name, "lying": longest == WIDTH, "bars": bars, "most": rows[values.index(most)][at]}


def _length(value: Decimal, most: Decimal, longest: int) -> Decimal:
    if value <= 0:
        return Decimal(0)
    return max((value * longest / most).quantize(Decimal("0.1")), Decimal("0.5"))
