"""A report of what the cache holds, at one position."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import NamedTuple

from commands.report import calendar
from commands.report.cache import Cache
from commands.report.calendar import Bucket
from commands.report.model import COUNT, FORMAT, MONEY, RATE, TEXT, Column, Header, Report, Row, rate
from commands.report.position import Position, show
from domain.values import money

SALES, PRODUCTS, PAYMENTS, CUSTOMERS = REPORTS = ("sales", "products", "payments", "customers")
LOG, MYSQL = SOURCES = ("log", "mysql")
REVENUE, PURCHASES = RANKS = ("revenue", "purchases")

#: What one period has, in the order of periods.sql.
_PERIOD = ("orders", "purchases", "revenue", "customers", "new", "returning", "repeating")
_RATE = "repeat_rate"
_KINDS = {"revenue": MONEY, _RATE: RATE, "product_name": TEXT, "payment_method": TEXT}
_COLUMNS = {
    SALES: ("orders", "purchases", "revenue"),
    CUSTOMERS: ("customers", "new", "returning", "repeating", _RATE, "orders", "purchases", "revenue"),
    PRODUCTS: ("product_name", "customers", "purchases", "revenue"),
    PAYMENTS: ("payment_method", "orders", "purchases", "revenue"),
}


class Asked(NamedTuple):
    """What a report is about. `since` and `until` are in microseconds since 1970; `by` a unit of time, or None."""

    report: str
    since: int
    until: int
    by: str | None
    tz: tzinfo
    tz_name: str
    rank: str = REVENUE
    limit: int = 100
    source: str = LOG


def fold(cache: Cache, position: Mapping[int, int]) -> None:
    """Let the purchases be those at a position: all below its offsets counts. What is asked later is asked of them."""
    cache.run("DELETE FROM upto")
    for partition, offset in position.items():
        cache.run("INSERT INTO upto VALUES (?, ?)", [partition, offset])
    cache.run("CREATE OR REPLACE TABLE scratch.purchases AS SELECT * FROM folded")


def make(cache: Cache, asked: Asked, position: Position) -> Report:
    """The report of the purchases that were folded at `position`. Raises BadReport for a span of too many buckets."""
    ranked = asked.report in (PRODUCTS, PAYMENTS)
    buckets = calendar.buckets(asked.since, asked.until, asked.by, asked.tz)
    whole = calendar.buckets(asked.since, asked.until, None, asked.tz)
    names = [*([asked.by] if asked.by else []), *_COLUMNS[asked.report]]
    total = _periods(cache, whole)[0] if whole else dict.fromkeys(_PERIOD, 0)
    if ranked:
        rows = _ranked(cache, asked, buckets)
    else:
        rows = _periods(cache, buckets)
    if asked.by:
        for one in rows:
            one[asked.by] = buckets[one["bucket"]].name
    columns = [Column(name, _KINDS.get(name, TEXT if name == asked.by else COUNT)) for name in names]
    header = Header(
        report=asked.report,
        since=calendar.shown(asked.since, asked.tz),
        until=calendar.shown(asked.until, asked.tz),
        tz=asked.tz_name,
        by=asked.by,
        rank=asked.rank if ranked else None,
        limit=asked.limit if ranked else None,
        source=asked.source,
        as_of=show(position) if asked.source == LOG else None,
        events=_count(cache, "events") + _count(cache, "unreadable"),
        unreadable=_count(cache, "unreadable"),
        purchases=total["purchases"],
        rows=len(rows),
    )
    return Report(FORMAT, header, columns, [_row(columns, one) for one in rows], _row(columns, total))


def _periods(cache: Cache, buckets: list[Bucket]) -> list[dict]:
    _cut(cache, buckets)
    return [dict(zip(("bucket", *_PERIOD), row, strict=True)) for row in cache.ask("periods")]


def _ranked(cache: Cache, asked: Asked, buckets: list[Bucket]) -> list[dict]:
    _cut(cache, buckets)
    found = cache.ask(asked.report, [asked.limit, asked.rank == PURCHASES])
    return [dict(zip(("bucket", *_COLUMNS[asked.report]), row, strict=True)) for row in found]


def _cut(cache: Cache, buckets: list[Bucket]) -> None:
    cache.run("DELETE FROM buckets")
    cache.load("buckets", [{"number": at, "since": one.since, "until": one.until} for at, one in enumerate(buckets)])


def _row(columns: list[Column], values: dict) -> Row:
    return [_value(column, values) for column in columns]


def _value(column: Column, values: dict) -> str | int | None:
    if column.kind == RATE:
        return rate(values["repeating"], values["customers"])
    value = values.get(column.name)
    return money(value) if column.kind == MONEY else value


def _count(cache: Cache, table: str) -> int:
    return cache.run(f"SELECT count(*) FROM {table} JOIN upto USING (partition) WHERE {table}.place < upto.place")[0][0]
