"""Changes since an earlier report with the same parameters: orders that were cancelled, changed or arrived late."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal

import msgspec

from app.errors import BadReport
from commands.report.model import COUNT, FORMAT, MONEY, RATE, TEXT, Cells, CellValue, Report, ReportColumn, column_index
from domain.values import EXACT, money, parse_rfc3339

COLUMNS = [ReportColumn("restated", COUNT), ReportColumn("restated_revenue", MONEY)]
_NO_CHANGE: Cells = [0, "0.00"]
#: Field of the header that must be equal -> its name in JSON.
_SAME = {"report": "report", "since": "from", "until": "to", "tz": "tz", "by": "by", "rank": "rank", "limit": "limit"}
_ZERO: dict[str, CellValue] = {COUNT: 0, MONEY: "0.00", RATE: "0.0000"}


def restate(report: Report, earlier: Report) -> Report:
    """Add the changes since `earlier` to a report: purchases and revenue now, minus those of then.

    A row that exists only in `earlier` has zeros. If the other report may have had a row too, but was cut at its limit,
    the change is None. Raises BadReport if the parameters differ.
    """
    require_same(report, earlier)
    now, then = _without_changes(report), _without_changes(earlier)
    cut_now, cut_then = _cut_buckets(now), _cut_buckets(then)
    earlier_rows = {_key(then, row): row for row in then.rows}
    rows: list[Cells] = []
    for row in now.rows:
        before = earlier_rows.pop(_key(now, row), None)
        is_unknown = before is None and _bucket(now, row) in cut_then
        rows.append([*row, *([None, None] if is_unknown else _change(now, row, before or _zero_row(then, row)))])
    for row in earlier_rows.values():
        zeros = _zero_row(then, row)
        rows.append([*zeros, *([None, None] if _bucket(then, row) in cut_now else _change(now, zeros, row))])
    if now.header.by:
        rows.sort(key=lambda row: _parse_bucket(row[0]))
    header = msgspec.structs.replace(now.header, rows=len(rows), compared_with=then.header.as_of)
    total = [*now.total, *_change(now, now.total, then.total)]
    return Report(FORMAT, header, [*now.columns, *COLUMNS], rows, total)


def only_changes(report: Report) -> Report:
    """Keep only the rows of a restated report that have changed, or may have."""
    rows = [row for row in report.rows if row[-2:] != _NO_CHANGE]
    return msgspec.structs.replace(report, rows=rows, header=msgspec.structs.replace(report.header, rows=len(rows)))


def require_same(report: Report, earlier: Report) -> None:
    """Raise BadReport if the parameters of two reports differ."""
    for field, name in _SAME.items():
        now, then = getattr(report.header, field), getattr(earlier.header, field)
        if now != then:
            raise BadReport(f"the two reports differ in {name}: {then} in the earlier one, {now} in the later one")


def _without_changes(report: Report) -> Report:
    """Remove the columns of an earlier comparison."""
    if report.columns[-len(COLUMNS) :] != COLUMNS:
        return report
    width = len(report.columns) - len(COLUMNS)
    rows = [row[:width] for row in report.rows]
    return msgspec.structs.replace(report, columns=report.columns[:width], rows=rows, total=report.total[:width])


def _key(report: Report, row: Cells) -> tuple[CellValue, ...]:
    return tuple(value for column, value in zip(report.columns, row, strict=True) if column.kind == TEXT)


def _bucket(report: Report, row: Cells) -> CellValue:
    return row[0] if report.header.by else None


def _cut_buckets(report: Report) -> set[CellValue]:
    """The buckets that may have more rows than the report contains."""
    limit = report.header.limit
    counts = Counter(_bucket(report, row) for row in report.rows)
    return {bucket for bucket, count in counts.items() if limit is not None and count >= limit}


def _zero_row(report: Report, row: Cells) -> Cells:
    return [
        value if column.kind == TEXT else _ZERO[column.kind] for column, value in zip(report.columns, row, strict=True)
    ]


def _change(report: Report, now: Cells, then: Cells) -> Cells:
    purchases, revenue = column_index(report, "purchases"), column_index(report, "revenue")
    change = EXACT.subtract(Decimal(str(now[revenue])), Decimal(str(then[revenue])))
    return [int(now[purchases] or 0) - int(then[purchases] or 0), money(change)]


def _parse_bucket(bucket: CellValue) -> datetime:
    return parse_rfc3339(str(bucket))
