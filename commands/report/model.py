"""What a report is: a header, columns, rows and a total. JSON is its whole form; the others are made of it."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import msgspec

from app.errors import BadReport

TEXT, COUNT, MONEY, RATE = "text", "count", "money", "rate"

#: A field of a row: text or a count as it is, money and rates as decimal text; None where there is none.
Value = str | int | None
Row = list[Value]


class Column(NamedTuple):
    """The name of a field, and of which kind its values are."""

    name: str
    kind: str


class Header(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    """What was asked for, and of what it was made; nothing in it depends on when that was done.

    Moments are RFC 3339 in `tz`. `as_of` is the position in `orders`, None with the source mysql. `events` and
    `unreadable` are records below it, in all; `purchases` are those in the span, `rows` those of the table.
    """

    report: str
    since: str
    until: str
    tz: str
    by: str | None
    rank: str | None
    limit: int | None
    source: str
    as_of: str | None
    events: int
    unreadable: int
    purchases: int
    rows: int
    compared_with: str | None = None


class Report(msgspec.Struct, frozen=True):
    """A report; each row and the total have a value for each column."""

    format: int
    header: Header
    columns: list[Column]
    rows: list[Row]
    total: Row


FORMAT = 1
_KINDS = {TEXT, COUNT, MONEY, RATE}


def encode(report: Report) -> bytes:
    """The JSON document."""
    fields = {
        "format": report.format,
        "header": report.header,
        "columns": [{"name": one.name, "kind": one.kind} for one in report.columns],
        "rows": [_named(report, row) for row in report.rows],
        "total": _named(report, report.total),
    }
    return msgspec.json.format(msgspec.json.encode(fields), indent=1) + b"\n"


def decode(document: bytes, name: str) -> Report:
    """The same, read. Raises BadReport with `name`, where the document came from."""
    try:
        fields = msgspec.json.decode(document)
        columns = [Column(one["name"], one["kind"]) for one in fields["columns"]]
        names = [one.name for one in columns]
        rows = [[row[name] for name in names] for row in fields["rows"]]
        total = [fields["total"][name] for name in names]
        report = msgspec.convert({**fields, "columns": columns, "rows": rows, "total": total}, Report)
        if not ({one.kind for one in columns} <= _KINDS and {"purchases", "revenue"} <= set(names)):
            raise LookupError("its columns are not known")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError) as exc:
        raise BadReport(f"{name} is no report in JSON ({exc}): give one that was made with --format json") from None
    if report.format != FORMAT:
        raise BadReport(f"{name} has format {report.format}, this version knows {FORMAT}: make it anew")
    return report


def place(report: Report, name: str) -> int:
    """Where a column stands."""
    return [one.name for one in report.columns].index(name)


def rate(part: int, whole: int) -> str:
    """A part of a whole with four decimals; 0 of nothing."""
    return str((Decimal(part) / whole if whole else Decimal(0)).quantize(Decimal("0.0001")))


def _named(report: Report, row: Row) -> dict[str, Value]:
    return {column.name: value for column, value in zip(report.columns, row, strict=True)}
