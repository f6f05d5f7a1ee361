"""What has changed since an earlier report of the same: orders that were cancelled, changed or came late."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal

import msgspec

from app.errors import BadReport
from commands.report.model import COUNT, FORMAT, MONEY, RATE, TEXT, Column, Report, Row, Value, place
from domain.values import EXACT, money

COLUMNS = [Column("restated", COUNT), Column("restated_revenue", MONEY)]
_SAME = {"report": "report", "since": "from", "until": "to", "tz": "tz", "by": "by", "rank": "rank", "limit": "limit"}
_NOTHING = {COUNT: 0, MONEY: "0.00", RATE: "0.0000"}


def restated(report: Report, earlier: Report) -> Report:
    """The report with what has changed since `earlier`: purchases and revenue now, less those of then.

    A row that there was only then is here with zeros. Where the other report may have had a row too, and was cut at its
    limit, what has changed is None. Raises BadReport when the two are not about the same.
    """
    require_same(report, earlier)
    now, then = _plain(report), _plain(earlier)
    cut_now, cut_then = _cut(now), _cut(then)
    known = {_key(then, row): row for row in then.rows}
    rows = []
    for row in now.rows:
        before = known.pop(_key(now, row), None)
        unknown = before is None and _bucket(now, row) in cut_then
        rows.append([*row, *([None, None] if unknown else _change(now, row, before or _gone(then, row)))])
    for row in known.values():
        gone = _gone(then, row)
        rows.append([*gone, *([None, None] if _bucket(then, row) in cut_now else _change(now, gone, row))])
    if now.header.by:
        rows.sort(key=lambda row: _moment(row[0]))
    header = msgspec.structs.replace(now.header, rows=len(rows), compared_with=then.header.as_of)
    total = [*now.total, *_change(now, now.total, then.total)]
    return Report(FORMAT, header, [*now.columns, *COLUMNS], rows, total)


def changes(report: Report) -> Report:
    """Of a report that was restated only the rows that have changed, or may have."""
    rows = [row for row in report.rows if row[-2:] != [0, "0.00"]]
    return msgspec.structs.replace(report, rows=rows, header=msgspec.structs.replace(report.header, rows=len(rows)))


def require_same(report: Report, earlier: Report) -> None:
    """Raise BadReport when the two are not about the same."""
    for name, shown in _SAME.items():
        now, then = getattr(report.header, name), getattr(earlier.header, name)
        if now != then:
            raise BadReport(f"the two reports are not about the same: {shown} was {then} in the earlier, and is {now}")


def _plain(report: Report) -> Report:
    """Without what an earlier comparison has added."""
    if report.columns[-len(COLUMNS) :] != COLUMNS:
        return report
    width = len(report.columns) - len(COLUMNS)
    rows = [row[:width] for row in report.rows]
    return msgspec.structs.replace(report, columns=report.columns[:width], rows=rows, total=report.total[:width])


def _key(report: Report, row: Row) -> tuple[Value, ...]:
    return tuple(value for column, value in zip(report.columns, row, strict=True) if column.kind == TEXT)


def _bucket(report: Report, row: Row) -> Value:
    return row[0] if report.header.by else None


def _cut(report: Report) -> set[Value]:
    """The buckets that may have more rows than the report shows."""
    limit = report.header.limit
    counts = Counter(_bucket(report, row) for row in report.rows)
    return {bucket for bucket, count in counts.items() if limit is not None and count >= limit}


def _gone(report: Report, row: Row) -> Row:
    return [
        value if column.kind == TEXT else _NOTHING[column.kind]
        for column, value in zip(report.columns, row, strict=True)
    ]


def _change(report: Report, now: Row, then: Row) -> Row:
    purchases, revenue = place(report, "purchases"), place(report, "revenue")
    change = EXACT.subtract(Decimal(now[revenue]), Decimal(then[revenue]))
    return [now[purchases] - then[purchases], money(change)]


def _moment(bucket: Value) -> datetime:
    return datetime.fromisoformat(str(bucket).replace("Z", "+00:00"))
