"""Builds a report from the events in the cache, at one position."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, NamedTuple

from commands.report import calendar
from commands.report.cache import EventCache
from commands.report.calendar import Bucket
from commands.report.model import (
    COUNT,
    FORMAT,
    MONEY,
    RATE,
    TEXT,
    Cells,
    CellValue,
    Header,
    Report,
    ReportColumn,
    ratio,
)
from commands.report.position import Position, format_position
from domain.values import money

SALES, PRODUCTS, PAYMENTS, CUSTOMERS = REPORTS = ("sales", "products", "payments", "customers")
LOG, MYSQL = SOURCES = ("log", "mysql")
REVENUE, PURCHASES = RANKS = ("revenue", "purchases")

#: Columns of periods.sql after the bucket.
_PERIOD = ("orders", "purchases", "revenue", "customers", "new", "returning", "repeating")
_REPEAT_RATE = "repeat_rate"
_KINDS = {"revenue": MONEY, _REPEAT_RATE: RATE, "product_name": TEXT, "payment_method": TEXT}
_COLUMNS = {
    SALES: ("orders", "purchases", "revenue"),
    CUSTOMERS: ("customers", "new", "returning", "repeating", _REPEAT_RATE, "orders", "purchases", "revenue"),
    PRODUCTS: ("product_name", "customers", "purchases", "revenue"),
    PAYMENTS: ("payment_method", "orders", "purchases", "revenue"),
}

#: Column name -> value, as DuckDB returns it.
Fields = dict[str, Any]


class ReportQuery(NamedTuple):
    """Parameters of a report. `since` and `until` are microseconds since 1970; `by` is a unit of time, or None."""

    report: str
    since: int
    until: int
    by: str | None
    tz: tzinfo
    tz_name: str
    rank: str = REVENUE
    limit: int = 100
    source: str = LOG


def fold_to(cache: EventCache, position: Mapping[int, int]) -> None:
    """Fold all events below the offsets of `position` into the purchases that later queries read."""
    cache.execute("DELETE FROM upto")
    for partition, offset in position.items():
        cache.execute("INSERT INTO upto VALUES (?, ?)", [partition, offset])
    cache.execute("CREATE OR REPLACE TABLE scratch.purchases AS SELECT * FROM folded")


def build_report(cache: EventCache, query: ReportQuery, position: Position) -> Report:
    """Build the report of the purchases that were folded to `position`. Raises BadReport for too many buckets."""
    is_ranked = query.report in (PRODUCTS, PAYMENTS)
    buckets = calendar.buckets(query.since, query.until, query.by, query.tz)
    span = calendar.buckets(query.since, query.until, None, query.tz)
    names = [*([query.by] if query.by else []), *_COLUMNS[query.report]]
    total = _count_periods(cache, span)[0] if span else dict.fromkeys(_PERIOD, 0)
    rows = _rank(cache, query, buckets) if is_ranked else _count_periods(cache, buckets)
    if query.by:
        for row in rows:
            row[query.by] = buckets[row["bucket"]].name
    columns = [ReportColumn(name, _KINDS.get(name, TEXT if name == query.by else COUNT)) for name in names]
    header = Header(
        report=query.report,
        since=calendar.format_moment(query.since, query.tz),
        until=calendar.format_moment(query.until, query.tz),
        tz=query.tz_name,
        by=query.by,
        rank=query.rank if is_ranked else None,
        limit=query.limit if is_ranked else None,
        source=query.source,
        as_of=format_position(position) if query.source == LOG else None,
        events=_count_below_position(cache, "events") + _count_below_position(cache, "unreadable"),
        unreadable=_count_below_position(cache, "unreadable"),
        purchases=total["purchases"],
        rows=len(rows),
    )
    return Report(FORMAT, header, columns, [_cells(columns, row) for row in rows], _cells(columns, total))


def _count_periods(cache: EventCache, buckets: list[Bucket]) -> list[Fields]:
    _set_buckets(cache, buckets)
    return [dict(zip(("bucket", *_PERIOD), row, strict=True)) for row in cache.query("periods")]


def _rank(cache: EventCache, query: ReportQuery, buckets: list[Bucket]) -> list[Fields]:
    _set_buckets(cache, buckets)
    rows = cache.query(query.report, [query.limit, query.rank == PURCHASES])
    return [dict(zip(("bucket", *_COLUMNS[query.report]), row, strict=True)) for row in rows]


def _set_buckets(cache: EventCache, buckets: list[Bucket]) -> None:
    cache.execute("DELETE FROM buckets")
    cache.load(
        "buckets",
        [{"number": number, "since": bucket.since, "until": bucket.until} for number, bucket in enumerate(buckets)],
    )


def _cells(columns: list[ReportColumn], fields: Fields) -> Cells:
    return [_cell(column, fields) for column in columns]


def _cell(column: ReportColumn, fields: Fields) -> CellValue:
    if column.kind == RATE:
        return ratio(fields["repeating"], fields["customers"])
    if column.kind == MONEY:
        return money(fields[column.name])
    value: CellValue = fields.get(column.name)
    return value


def _count_below_position(cache: EventCache, table: str) -> int:
    ((count,),) = cache.execute(
        f"SELECT count(*) FROM {table} JOIN upto USING (partition) WHERE {table}.place < upto.place"
    )
    return int(count)
