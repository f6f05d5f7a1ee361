"""Reports count what the tables would hold: the oracles are the tables' own fold, and sums made one by one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.errors import BadReport, FolderInUse
from commands.report import build, calendar
from commands.report.build import CUSTOMERS, MYSQL, PAYMENTS, PRODUCTS, PURCHASES, SALES, ReportQuery
from commands.report.cache import DamagedCache, ErasureRow, EventCache, event_row
from domain import purchases as folds
from domain.errors import LatelyError
from domain.events import CHANGED, ERASED, PLACED, REMOVED, REPAIRED, SNAPSHOT, Event
from domain.values import money
from tests.kit.makers import at, erasure, event

UTC = ZoneInfo("UTC")
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
DAY = calendar.span("2026-01-31", "2026-02-01", UTC)

#: Two users, the first in partition 0: an integer and a text of the same digits, a name with a zero byte and quotes.
PARTITIONS = {"ann": 0, 'b"ob': 1}
NAMES = [(7, "tea"), ("7", "tea"), ("7", "Tea\x00,'\""), (-(2**63), "é\n")]

moments = st.sampled_from([at(0), at(0.5), at(30), datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc)])
prices = st.sampled_from(["1", "1.0", "01.00", "0.0000000001", "999999999999999999.9999999999"])
labels = st.sampled_from([None, "", "card", "#1 \U0001f600"])


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Events in the order of the log; often of the same purchase and the same version."""
    return [
        erasure(draw(st.integers(0, 1)), draw(st.sampled_from(list(PARTITIONS))))
        if name is None
        else event(
            draw(st.sampled_from([PLACED, CHANGED, REMOVED, SNAPSHOT, REPAIRED])),
            user_id=draw(st.sampled_from(list(PARTITIONS))), order_id=name[0], product_name=name[1],
            version=draw(st.integers(0, 2)), price=draw(prices), ordered_at=draw(moments),
            payment_method=draw(labels), category=draw(labels),
        )
        for name in draw(st.lists(st.sampled_from([*NAMES, *NAMES, None]), max_size=14))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventCache]:
    """A cache that each example empties."""
    one = EventCache(tmp_path_factory.mktemp("report"), "log", "topic orders", 96)
    yield one
    one.close()


def fill(cache: EventCache, history: list[Event]) -> None:
    """The events at offsets that leave holes, as markers of transactions do."""
    for table in ("events", "erasures", "unreadable", "positions"):
        cache.execute(f"DELETE FROM {table}")
    places = [(PARTITIONS.get(one.data.user_id, 0), 2 * number, one) for number, one in enumerate(history)]
    rows = [event_row(partition, place, one.type, one.data) for partition, place, one in places if one.type != ERASED]
    erasures = [ErasureRow(partition, place, one.data.user_id, one.data.version)
                for partition, place, one in places if one.type == ERASED]  # fmt: skip
    cache.add(rows, [(0, 1)], {0: (2 * len(history), None, None)}, erasures=erasures)
    build.fold_to(cache, END)


def folded(history: list[Event]) -> list[tuple]:
    """What the tables hold after these events: all live purchases."""
    values: dict[str, bytes | None] = {}
    others: dict[bytes, bytes | None] = {}
    for one in history:
        user = one.data.user_id
        if one.type == ERASED:
            beside = [(key, kept) for key, kept in others.items() if kept and key.startswith(user.encode() + b"\x00")]
            values[user] = folds.erase(
                user.encode(), values.get(user), one.data.version, beside, others.__setitem__, []
            )
            continue
        values[user] = folds.apply_event(
            user.encode(), values.get(user), one, 0, others.get, others.__setitem__, max_entries=2, trim_to=1,
            price_changes=[],
        )  # fmt: skip
    found = []
    for user, value in values.items():
        beside = [kept for key, kept in others.items() if kept is not None and key.startswith(user.encode() + b"\x00")]
        found += [
            (user, one.order_id, one.product_name, one.ordered_at, Decimal(one.price), one.payment_method)
            for one in folds.all_purchases(value, beside)
            if one.live
        ]
    return sorted(found, key=repr)


def counted(cache: EventCache) -> list[tuple]:
    """The purchases of the cache, in the same shape."""
    found = cache.execute(
        "SELECT user_id, order_id, product_name, ordered_at, price, payment_method FROM scratch.purchases"
    )
    return sorted(
        ((user, int(order[1:]) if order[0] == "i" else order[1:], *rest) for user, order, *rest in found), key=repr
    )


def exactly(purchases: list[tuple]) -> str:
    """The sum of their prices, which may have more digits than Python's decimals have by default."""
    whole, rest = divmod(sum((Fraction(one[4]) for one in purchases), Fraction(0)) * 10**10, 10**10)
    return money(Decimal(f"{whole}.{int(rest):010}"))


def shape(purchases: list[tuple]) -> list[tuple]:
    """With prices that compare by their value."""
    return [(*one[:4], one[4].normalize(), one[5]) for one in purchases]


EQUAL = [
    event(PLACED, version=1, price="2"), event(REPAIRED, version=1, price="1"), event(CHANGED, version=1, price="1.5"),
    event(CHANGED, version=1, price="1"),
]  # fmt: skip


@given(histories())
@example(EQUAL)
@example(EQUAL[::-1])
@example([event(ordered_at=EPOCH + timedelta(microseconds=number)) for number in (9, 10)])
@example([event(payment_method=label) for label in ("card", None)])
@example([event(version=1), erasure(1), event(version=1), event(order_id="o-2", version=2), erasure(0)])
@example([event(REPAIRED, version=1, price="1"), event(REMOVED, version=1), event(PLACED, version=2, price="3")])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_at_every_position_the_purchases_are_those_of_the_tables_there(cache: EventCache, history: list[Event]):
    fill(cache, history)
    for number in {*range(0, len(history), 5), len(history)}:
        build.fold_to(cache, dict.fromkeys(PARTITIONS.values(), 2 * number))
        assert shape(counted(cache)) == shape(folded(history[:number]))


def asked(report: str, by: str | None = None, span: tuple[int, int] = DAY, tz: ZoneInfo = UTC, **fields) -> ReportQuery:
    return ReportQuery(report, *span, by, tz, str(tz), **fields)


END = {0: 2**40, 1: 2**40}


def make(cache: EventCache, wanted: ReportQuery, position: dict[int, int] | None = None) -> dict:
    """A report as its header, rows and total by name; without a position of what was folded last."""
    if position is not None:
        build.fold_to(cache, position)
    position = position or END
    report = build.build_report(cache, wanted, position)
    names = [column.name for column in report.columns]
    return {
        "header": report.header,
        "rows": [dict(zip(names, one, strict=True)) for one in report.rows],
        "total": dict(zip(names, report.total, strict=True)),
    }


@given(histories())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_reports_of_a_day_are_sums_of_its_purchases(cache: EventCache, history: list[Event]):
    fill(cache, history)
    everything = folded(history)
    inside = [one for one in everything if DAY[0] <= one[3] < DAY[1]]
    total = make(cache, asked(SALES, "day"))["total"]
    assert total == {
        "day": None,
        "orders": len({one[:2] for one in inside}),
        "purchases": len(inside),
        "revenue": exactly(inside),
    }
    by_product: dict[str, list] = {}
    by_payment: dict[str | None, list] = {}
    for one in inside:
        by_product.setdefault(one[2], []).append(one)
        by_payment.setdefault(one[5], []).append(one)
    products = make(cache, asked(PRODUCTS))["rows"]
    assert [one["revenue"] for one in products] == sorted((one["revenue"] for one in products), key=Decimal)[::-1]
    assert {one["product_name"]: (one["customers"], one["purchases"], one["revenue"]) for one in products} == {
        name: (len({one[0] for one in some}), len(some), exactly(some)) for name, some in by_product.items()
    }
    payments = make(cache, asked(PAYMENTS))["rows"]
    assert {one["payment_method"]: (one["orders"], one["purchases"], one["revenue"]) for one in payments} == {
        name: (len({one[:2] for one in some}), len(some), exactly(some)) for name, some in by_payment.items()
    }
    customers = make(cache, asked(CUSTOMERS, "day"))["total"]
    orders = {user: len({one[1] for one in inside if one[0] == user}) for user in {one[0] for one in inside}}
    earlier = {one[0] for one in everything if one[3] < DAY[0]}
    assert (customers["customers"], customers["new"], customers["returning"], customers["repeating"]) == (
        len(orders), len(orders.keys() - earlier), len(orders.keys() & earlier),
        sum(count > 1 for count in orders.values()),
    )  # fmt: skip


def test_orders_count_once_and_customers_by_what_they_did_before(cache: EventCache):
    day = timedelta(days=1)
    fill(
        cache,
        [
            event(user_id="ann", order_id="1", product_name="tea", price="1.10", ordered_at=at(0), version=1),
            event(user_id="ann", order_id="1", product_name="pot", price="20", ordered_at=at(0), version=1),
            event(user_id="ann", order_id="2", product_name="tea", price="0.005", ordered_at=at(1), version=1),
            event(user_id="bob", order_id="1", product_name="tea", price="1.10", ordered_at=at(2), version=1,
                  payment_method=None),
            event(user_id="bob", order_id="3", product_name="tea", price="1.10", ordered_at=at(2) + day, version=1),
        ],
    )  # fmt: skip
    two = (DAY[0], DAY[1] + 86_400_000_000)
    assert make(cache, asked(SALES, "day", two))["rows"] == [
        {"day": "2026-01-31", "orders": 3, "purchases": 4, "revenue": "22.205"},
        {"day": "2026-02-01", "orders": 1, "purchases": 1, "revenue": "1.10"},
    ]
    made = make(cache, asked(CUSTOMERS, "day", two))
    names = ("customers", "new", "returning", "repeating", "repeat_rate", "orders")
    assert [tuple(one[name] for name in names) for one in made["rows"]] == [
        (2, 2, 0, 1, "0.5000", 3),
        (1, 0, 1, 0, "0.0000", 1),
    ]
    # Over both days bob has placed two orders as well.
    assert tuple(made["total"][name] for name in names) == (2, 2, 0, 2, "1.0000", 4)
    by_number = make(cache, asked(PRODUCTS, None, two, rank=PURCHASES, limit=1))
    assert by_number["rows"] == [{"product_name": "tea", "customers": 2, "purchases": 4, "revenue": "3.305"}]
    # The total is of all products, not only of those that are shown.
    assert by_number["total"]["revenue"] == "23.305"
    assert [one["product_name"] for one in make(cache, asked(PRODUCTS, None, two))["rows"]] == ["pot", "tea"]
    assert [(one["day"], one["payment_method"], one["purchases"]) for one in
            make(cache, asked(PAYMENTS, "day", two))["rows"]] == [
        ("2026-01-31", "card", 3), ("2026-01-31", None, 1), ("2026-02-01", "card", 1),
    ]  # fmt: skip


def test_an_empty_span_and_an_empty_log_are_reports_without_purchases(cache: EventCache):
    fill(cache, [])
    for name, by in ((SALES, "day"), (CUSTOMERS, "day"), (PRODUCTS, None), (PAYMENTS, "week")):
        for span in (DAY, (DAY[0], DAY[0])):
            made = make(cache, asked(name, by, span))
            assert (made["header"].purchases, made["total"]["purchases"], made["total"]["revenue"]) == (0, 0, "0.00")
            assert len(made["rows"]) == (1 if span == DAY and name in (SALES, CUSTOMERS) else 0)


def test_a_day_is_that_of_its_zone(cache: EventCache):
    berlin = ZoneInfo("Europe/Berlin")
    # The clocks are put back in the night to 2026-10-25: 22:00 UTC is its midnight, 23:00 UTC that of the next day.
    times = [(24, 21, 59), (24, 22, 0), (25, 0, 30), (25, 1, 30), (25, 22, 59), (25, 23, 0)]
    fill(
        cache,
        [
            event(order_id=str(number), ordered_at=datetime(2026, 10, day, hour, minute, tzinfo=timezone.utc))
            for number, (day, hour, minute) in enumerate(times)
        ],
    )
    span = calendar.span("2026-10-24", "2026-10-27", berlin)
    rows = make(cache, asked(SALES, "day", span, berlin))["rows"]
    assert [(one["day"], one["purchases"]) for one in rows] == [("2026-10-24", 1), ("2026-10-25", 4), ("2026-10-26", 1)]
    hours = make(cache, asked(SALES, "hour", calendar.span("2026-10-25", "2026-10-26", berlin), berlin))
    assert len(hours["rows"]) == 25
    assert [one["hour"] for one in hours["rows"] if one["purchases"]] == [
        "2026-10-25T00:00+02:00", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T23:00+01:00",
    ]  # fmt: skip
    assert hours["header"].since == "2026-10-25T00:00:00+02:00"


def test_money_is_exact_to_the_last_digit(cache: EventCache):
    most = "999999999999999999.9999999999"
    fill(cache, [event(order_id=str(number), price=most) for number in range(1_000)])
    revenue = make(cache, asked(SALES, "day"))["total"]["revenue"]
    assert revenue == money(Decimal(most) * 1_000) == "999999999999999999999.9999999"


def test_what_was_counted_depends_on_the_position_alone(cache: EventCache):
    fill(cache, [event(version=1, price="1"), event(CHANGED, version=2, price="2"), event(REMOVED, version=3)])
    seen = [make(cache, asked(SALES, "day"), {0: place, 1: 0}) for place in (0, 1, 2, 3, 4, 5)]
    assert [one["total"]["revenue"] for one in seen] == ["0.00", "1.00", "1.00", "2.00", "2.00", "0.00"]
    assert [(one["header"].events, one["header"].unreadable) for one in seen] == [
        (0, 0), (1, 0), (2, 1), (3, 1), (3, 1), (4, 1),
    ]  # fmt: skip
    assert seen[3]["header"].as_of == "0:3,1:0"
    assert make(cache, asked(SALES, "day", source=MYSQL))["header"].as_of is None


def events(cache: EventCache) -> int:
    return cache.execute("SELECT count(*) FROM events")[0][0]


def test_a_cache_goes_on_and_is_made_anew_where_it_does_not_fit(tmp_path: Path):
    def opened(of: str = "topic orders") -> EventCache:
        return EventCache(tmp_path, "log", of, 96)

    one = opened()
    one.add([event_row(0, 0, PLACED, event().data)], [], {0: (1, 0, 42)})
    one.close()
    again = opened()
    assert (events(again), again.positions()) == (1, {0: (1, 0, 42)})
    again.close()
    other = opened("topic of another shop")
    assert (events(other), other.positions()) == (0, {})
    other.execute("UPDATE about SET format = format + 1")
    other.close()
    newer = opened("topic of another shop")
    newer.add([event_row(0, 0, PLACED, event().data)], [], {0: (1, 0, 42)})
    newer.close()
    (tmp_path / "log.duckdb").write_bytes(b"no database" * 1000)
    mended = opened("topic of another shop")
    assert events(mended) == 0
    mended.close()
    with duckdb.connect(str(tmp_path / "log.duckdb")) as foreign:
        for table in ("about", "events"):
            foreign.execute(f"DROP TABLE {table}")
    last = opened()
    assert events(last) == 0
    last.close()


def test_what_was_read_is_kept_whole_or_not_at_all(tmp_path: Path):
    cache = EventCache(tmp_path, "log", "topic orders", 96)
    with pytest.raises(DamagedCache):
        cache.add([event_row(0, 0, PLACED, event().data)], [], {0: ("no offset", None, None)})
    cache.close()
    again = EventCache(tmp_path, "log", "topic orders", 96)
    assert (events(again), again.positions()) == (0, {})
    again.close()


def test_two_reports_at_once_are_told_from_a_damaged_file(tmp_path: Path):
    code = (
        "import pathlib, sys; from commands.report.cache import EventCache; "
        "cache = EventCache(pathlib.Path(sys.argv[1]), 'log', 'topic orders', 96); print('open', flush=True); "
        "sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(FolderInUse, match=f"is in use by another report with process id {other.pid}: wait for"):
            EventCache(tmp_path, "log", "topic orders", 96)
        other.stdin.close()
    EventCache(tmp_path, "log", "topic orders", 96).close()


def test_a_file_that_another_program_has_opened_is_not_replaced(tmp_path: Path):
    cache = EventCache(tmp_path, "log", "topic orders", 96)
    cache.add([event_row(0, 0, PLACED, event().data)], [], {0: (1, 0, 42)})
    cache.close()
    code = "import duckdb, sys; connection = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(tmp_path / "log.duckdb")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(FolderInUse, match=r"another process has opened .*log\.duckdb: wait for its end"):
            EventCache(tmp_path, "log", "topic orders", 96)
        other.stdin.close()
    again = EventCache(tmp_path, "log", "topic orders", 96)
    assert (events(again), again.positions()) == (1, {0: (1, 0, 42)})
    again.close()


def test_a_query_that_needs_more_memory_says_so(cache: EventCache, tmp_path: Path):
    one = EventCache(tmp_path, "log", "topic orders", 64)
    with pytest.raises(LatelyError, match="--memory-mb"):
        one.execute("SELECT list(range) FROM range(100000000)")
    one.close()


@pytest.mark.parametrize(
    "text", ["", "0:1", "0:1,0:2", "0:1,1:2,2:3", "0:1,1:-2", "0:1,1:2x", "1", "0:1;1:2", "0:1,1:99999999999999999999"]
)
def test_a_position_names_each_partition_once(text: str):
    from commands.report import position

    assert position.parse_position(position.format_position({1: 7, 0: 12}), 2) == {0: 12, 1: 7}
    with pytest.raises(BadReport, match="--as-of"):
        position.parse_position(text, 2)
