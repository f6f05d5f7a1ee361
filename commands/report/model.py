"""A report: header, columns, rows and a total. JSON contains all of it; the other formats derive from it."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import msgspec

from app.errors import BadReport

TEXT, COUNT, MONEY, RATE = "text", "count", "money", "rate"

#: A cell: text or a count, money and ratios as decimal text; None if there is no value.
CellValue = str | int | None
Cells = list[CellValue]


class ReportColumn(NamedTuple):
    """Name of a column and kind of its values."""

    name: str
    kind: str


class Header(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    """Query and input of a report, independent of the time of its creation.

    Moments are RFC 3339 in `tz`. `as_of` is the position in `orders`, None for the source mysql. `events` and
    `unreadable` count all records below the position, `purchases` those in the span, `rows` the rows of the report.
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
    """A report; each row and the total have one cell per column."""

    format: int
    header: Header
    columns: list[ReportColumn]
    rows: list[Cells]
    total: Cells


FORMAT = 1
_KINDS = {TEXT, COUNT, MONEY, RATE}


def encode(report: Report) -> bytes:
    """Encode the JSON document."""
    fields = {
        "format": report.format,
        "header": report.header,
        "columns": [{"name": column.name, "kind": column.kind} for column in report.columns],
        "rows": [_cells_by_name(report, row) for row in report.rows],
        "total": _cells_by_name(report, report.total),
    }
    return msgspec.json.format(msgspec.json.encode(fields), indent=1) + b"\n"


def decode(document: bytes, name: str) -> Report:
    """Decode a JSON document. Raises BadReport with `name`, the origin of the document."""
    try:
        fields = msgspec.json.decode(document)
        columns = [ReportColumn(column["name"], column["kind"]) for column in fields["columns"]]
        names = [column.name for column in columns]
        rows = [[row[name] for name in names] for row in fields["rows"]]
        total = [fields["total"][name] for name in names]
        report = msgspec.convert({**fields, "columns": columns, "rows": rows, "total": total}, Report)
        if not ({column.kind for column in columns} <= _KINDS and {"purchases", "revenue"} <= set(names)):
            raise LookupError("its columns are unknown")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError) as exc:
        raise BadReport(f"{name} is no report in JSON ({exc}): use a file created with --format json") from None
    if report.format != FORMAT:
        raise BadReport(f"{name} has format {report.format}, this version reads {FORMAT}: create the report again")
    return report


def column_index(report: Report, name: str) -> int:
    """Index of the column `name`."""
    return [column.name for column in report.columns].index(name)


def ratio(part: int, total: int) -> str:
    """Format part / total with four decimals; 0 if total is 0."""
    return str((Decimal(part) / total if total else Decimal(0)).quantize(Decimal("0.0001")))


def _cells_by_name(report: Report, row: Cells) -> dict[str, CellValue]:
    return {column.name: value for column, value in zip(report.columns, row, strict=True)}
