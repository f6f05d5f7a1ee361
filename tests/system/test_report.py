"""`lately report` says what SQL and the live tables say, the same bytes each time, however it was interrupted."""

from __future__ import annotations

import asyncio
import csv
import json
import os
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from app.errors import BadReport, BadTopic
from app.kafka.admin import ensure_topics
from app.settings import Settings
from commands.report import calendar, formats, read_mysql
from commands.report.build import LOG, MYSQL, REPORTS, ReportQuery
from commands.report.report import run
from domain.events import CHANGED, PLACED, Event
from local.process import LocalProcess, find_free_port
from source import snapshot
from tests.kit.eventually import eventually
from tests.kit.makers import MORNING, event, wire
from tests.kit.python_process import PythonProcess
from tests.kit.stack import PYTHON, ROOT, Stack

USERS = [f"user-{number}" for number in range(20)]
#: All orders of `rows` lie in it.
SPAN = ("--from", "2026-01-30", "--to", "2026-02-03")


def rows(count: int) -> list[tuple]:
    """Orders of one to three products over three days and a minute before them."""
    begin = datetime(2026, 1, 30, 23, 59)
    return [
        (f"o{number // 3}", f"Product {number % 7}", USERS[number // 3 % 20], f"{number % 50}.5{number % 10}",
         str(begin + timedelta(minutes=11 * number)), ("card", "paypal", "")[number % 3])
        for number in range(count)
    ]  # fmt: skip


def start(stack: Stack, *words: str) -> LocalProcess:
    process = PythonProcess(f"report-{len(stack.processes)}", [PYTHON, "-m", "app", "report", *words], stack.folder,
                           env=stack.env, cwd=ROOT)  # fmt: skip
    stack.processes.append(process)
    process.start()
    return process


def report(stack: Stack, *words: object, code: int = 0, **env: str) -> str:
    """What `lately report …` prints, as a process of its own."""
    process = stack.lately("report", *map(str, words), **env)
    assert process.child.returncode == code, process.tail()
    return process.tail(10_000)


def asked(name: str, by: str | None = None, tz: str = "UTC", source: str = LOG) -> ReportQuery:
    zone = ZoneInfo(tz)
    return ReportQuery(name, *calendar.span("2026-01-30", "2026-02-03", zone), by, zone, tz, source=source)


def made(stack: Stack, *wanted: ReportQuery, as_of: str | None = None, **env: str) -> list[dict]:
    """Reports as JSON, made in this process."""
    settings = Settings.from_env({**stack.env, **env})
    reports = asyncio.run(run(settings, list(wanted), as_of, check=False)).reports
    return [json.loads(formats.encode(one, "json")) for one in reports]


def values(document: dict, *names: str) -> list[tuple]:
    return [tuple(row[name] for name in names) for row in document["rows"]]


def money(rows: Iterable[tuple]) -> list[tuple]:
    """Rows of SQL with sums as text, as reports have them."""
    return [tuple(value if isinstance(value, str | int | None) else str(value) for value in row) for row in rows]


def assert_equal_to_sql(stack: Stack, source: str) -> None:
    """All four reports say what SQL says."""
    sales, products, payments, customers = made(
        stack, *(asked(name, by, source=source) for name, by in zip(REPORTS, ("day", None, None, "day"), strict=True))
    )
    days = stack.select(
        "SELECT DATE_FORMAT(ordered_at, '%Y-%m-%d'), COUNT(DISTINCT order_id), COUNT(*), SUM(price) FROM orders"
        " GROUP BY 1 ORDER BY 1"
    )
    assert [row for row in values(sales, "day", "orders", "purchases", "revenue") if row[1]] == money(days)
    (total,) = money(stack.select("SELECT COUNT(DISTINCT order_id), COUNT(*), SUM(price) FROM orders"))
    for one in (sales, payments, customers):
        assert tuple(one["total"][name] for name in ("orders", "purchases", "revenue")) == total
        assert one["header"]["purchases"] == total[1]
    by_product = stack.select(
        "SELECT product_name, COUNT(DISTINCT user_id), COUNT(*), SUM(price) FROM orders"
        " GROUP BY 1 ORDER BY 4 DESC, 3 DESC, 1"
    )
    assert values(products, "product_name", "customers", "purchases", "revenue") == money(by_product)
    by_payment = stack.select(
        "SELECT payment_method, COUNT(DISTINCT order_id), COUNT(*), SUM(price) FROM orders"
        " GROUP BY 1 ORDER BY 4 DESC, 3 DESC, 1"
    )
    assert values(payments, "payment_method", "orders", "purchases", "revenue") == money(by_payment)
    by_customer = stack.select(
        "SELECT DATE_FORMAT(day, '%Y-%m-%d'), COUNT(*), CAST(SUM(day = first) AS SIGNED),"
        " CAST(SUM(orders > 1) AS SIGNED) FROM"
        " (SELECT DATE(ordered_at) AS day, user_id, COUNT(DISTINCT order_id) AS orders FROM orders GROUP BY 1, 2) AS d"
        " JOIN (SELECT user_id, DATE(MIN(ordered_at)) AS first FROM orders GROUP BY 1) AS f USING (user_id)"
        " GROUP BY 1 ORDER BY 1"
    )
    assert [row for row in values(customers, "day", "customers", "new", "repeating") if row[1]] == by_customer


@pytest.mark.cost(21)
def test_reports_equal_sql_and_the_live_tables_and_can_be_made_again_byte_for_byte(stack: Stack):
    stack.create_orders()
    stack.insert(*rows(300))
    noon = datetime.now(timezone.utc).replace(tzinfo=None, hour=12) - timedelta(days=1)
    stack.insert(("yesterday", "Phone", "ann", "5.00", str(noon), None))
    stack.setup(since=None)
    stack.source()
    folder = stack.folder / "reports"
    worker = stack.worker(LATELY_SIMILAR="0").start().wait_ready()
    here = {"LATELY_WEB_PORT": str(worker.port)}
    eventually(lambda: worker.events() == 301, within=40)
    daily = {"LATELY_REPORT_DIR": str(folder), **here}
    report(stack, "daily", "--idle", **daily)
    kept = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert {path.name for path in kept} == {
        f"{noon.date()}-{name}.{form}" for name in REPORTS for form in ("json", "html")
    }
    sales = json.loads((folder / f"{noon.date()}-sales.json").read_text())
    assert sales["total"] == {"hour": None, "orders": 1, "purchases": 1, "revenue": "5.00"}
    stack.execute("DELETE FROM orders WHERE order_id = 'yesterday'")
    stack.publish("orders", (b"ann", b"no event"))
    eventually(lambda: worker.purchases("ann") == [] and worker.events() == 303, within=20)

    # What SQL says, from the log and from the table.
    assert_equal_to_sql(stack, LOG)
    assert_equal_to_sql(stack, MYSQL)
    # What the live tables say.
    said = report(stack, "sales", *SPAN, "--check", **here)
    assert "difference: 0 purchases, 0.00" in said, said
    assert "300 purchases" in said
    assert "unreadable      1\n" in said
    assert "events          303\n" in said

    # The same bytes at the same position, whatever has come since, in another process, with another cache.
    hours = ("customers", *SPAN, "--by", "hour", "--tz", "Europe/Berlin")
    first = stack.folder / "first.csv"
    report(stack, *hours, "--out", first, **here)
    text = first.read_text().splitlines()
    (as_of,) = [line.removeprefix("# as_of: ") for line in text if line.startswith("# as_of")]
    assert {"# rows: 96", "# events: 303", "# purchases: 300"} < set(text)
    assert len(list(csv.reader(line for line in text if not line.startswith("#")))) == 97
    old = stack.folder / "old.json"
    report(stack, "products", *SPAN, "--by", "day", "--out", old, **here)
    before = old.read_bytes()
    stack.execute("DELETE FROM orders WHERE order_id = 'o7' AND product_name = 'Product 0'")
    stack.execute("UPDATE orders SET price = price + 1 WHERE order_id = 'o8' AND product_name = 'Product 3'")
    stack.insert(("late", "Product 1", "bob", "7.00", "2026-01-31 10:00:00", "card"))
    eventually(lambda: worker.events() == 306, within=20)
    again = stack.folder / "again.csv"
    report(stack, *hours, "--as-of", as_of, "--out", again, LATELY_DATA_DIR=str(stack.folder / "new"))
    assert again.read_bytes() == first.read_bytes()
    for moment, events in (("2020-01-01T00:00:00Z", 0), ("2100-01-01T00:00:00Z", 306)):
        (then,) = made(stack, asked("sales", "day"), as_of=moment)
        assert then["header"]["events"] == events

    # An order that was cancelled, one that changed and one that came late are restated; the old file is as it was.
    report(stack, "products", *SPAN, "--by", "day", "--compare", old, "--out", stack.folder / "now.json", **here)
    now = json.loads((stack.folder / "now.json").read_text())
    changed = values(now, "day", "product_name", "restated", "restated_revenue")
    assert sorted(row for row in changed if row[2:] != (0, "0.00")) == [
        ("2026-01-31", "Product 0", -1, "-21.51"),
        ("2026-01-31", "Product 1", 1, "7.00"),
        ("2026-01-31", "Product 3", 0, "1.00"),
    ]
    assert (now["total"]["restated"], now["total"]["restated_revenue"]) == (0, "-13.51")
    assert old.read_bytes() == before

    # The reports of a day that exist stay as they are.
    report(stack, "daily", **daily)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == kept

    # A difference to the live tables is found, and named.
    with duckdb.connect(f"{stack.env['LATELY_DATA_DIR']}-report/log.duckdb") as cache:
        cache.execute("DELETE FROM events WHERE order_id = 'so9' AND product_name = 'Product 6'")
    said = report(stack, "sales", *SPAN, code=3, **here)
    assert "difference: 1 purchases, 27.57" in said, said
    assert "'Product 6' has " in said


@pytest.mark.both_databases
def test_a_reading_of_the_shop_that_was_interrupted_goes_on(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "CHUNK_ROWS", 50)
    monkeypatch.setattr(read_mysql, "BATCH_ROWS", 50)
    stack.create_orders()
    stack.insert(*rows(300))
    settings, sales, seen = Settings.from_env(stack.env), asked("sales", "day", source=MYSQL), []

    def interrupted(read: int, total: int) -> None:
        if read >= 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run(settings, [sales], progress=interrupted))
    (report,) = asyncio.run(run(settings, [sales], progress=lambda read, total: seen.append(read))).reports
    assert seen == [150, 200, 250, 300]
    assert (report.header.events, report.header.purchases, report.header.as_of) == (300, 300, None)
    # The next one reads all of it as it is now.
    stack.execute("DELETE FROM orders WHERE order_id = 'o7'")
    assert made(stack, sales)[0]["total"]["purchases"] == 297


def test_a_report_of_no_topic_or_of_a_position_that_never_was_is_refused_and_one_of_no_orders_is_empty(stack: Stack):
    with pytest.raises(BadTopic, match="does not exist: set the LATELY_TOPIC_PREFIX of the workers"):
        made(stack, asked("sales", "day"))
    asyncio.run(ensure_topics(Settings.from_env(stack.env)))
    for text in ("0:1", "nonsense", "0:0,1:0,2:0,3:5"):
        with pytest.raises(BadReport, match="--as-of"):
            made(stack, asked("sales", "day"), as_of=text)
    assert "not compared" in report(stack, "sales", *SPAN, "--check", LATELY_WEB_PORT=str(find_free_port()), code=75)
    sales, products = made(stack, asked("sales", "day"), asked("products"))
    assert (products["rows"], products["total"]["purchases"], len(sales["rows"])) == ([], 0, 4)


def test_a_report_that_was_killed_goes_on_and_one_of_another_topic_begins_anew(stack: Stack):
    settings = Settings.from_env(stack.env)
    asyncio.run(ensure_topics(settings))
    count = 100_000
    orders = [event(PLACED, user_id=f"u{number % 500}", order_id=number, price="2.10", version=1,
                    ordered_at=MORNING + timedelta(seconds=number % 50_000)) for number in range(count)]  # fmt: skip
    publish(stack, orders)
    publish(stack, [event(CHANGED, user_id="u7", order_id=7, price="1.10", version=2)])
    path = Path(f"{stack.env['LATELY_DATA_DIR']}-report") / "log.duckdb"
    killed = start(stack, "sales", *SPAN, "--no-check")
    log = path.with_suffix(".duckdb.wal")
    eventually(lambda: log.exists() and log.stat().st_size > 2**21, within=40)
    killed.kill()
    with duckdb.connect(str(path)) as cache:
        ((had,),) = cache.execute("SELECT count(*) FROM events").fetchall()
    assert 0 < had < count
    sales = asked("sales", "day")
    (whole,) = made(stack, sales)
    assert (whole["header"]["events"], whole["total"]) == (
        count + 1, {"day": None, "orders": count, "purchases": count, "revenue": "209999.00"},
    )  # fmt: skip
    # A damaged file is made anew.
    with path.open("r+b") as file:
        file.seek(20_000)
        file.write(os.urandom(path.stat().st_size - 20_000))
    assert made(stack, sales) == [whole]

    # What was deleted from the log is known to the cache, and to nobody else.
    topic = stack.topic("orders")
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    (deleted,) = admin.delete_records([TopicPartition(topic, 0, 5)]).values()
    deleted.result()
    assert made(stack, sales) == [whole]
    with pytest.raises(BadReport, match="--source mysql"):
        made(stack, sales, LATELY_DATA_DIR=str(stack.folder / "new"))

    # The topic was deleted and made anew, and has more records than the cache.
    admin.delete_topics([topic])[topic].result()
    eventually(lambda: topic not in admin.list_topics(timeout=5).topics, within=20)
    asyncio.run(ensure_topics(settings))
    publish(
        stack, [event(order_id=number, price="1.00", user_id=f"u{number % 500}") for number in range(count + 1_000)]
    )
    assert made(stack, sales)[0]["total"]["revenue"] == "101000.00"


def publish(stack: Stack, events: list[Event]) -> None:
    """More than fit a producer's queue."""
    for begin in range(0, len(events), 50_000):
        stack.publish("orders", *map(wire, events[begin : begin + 50_000]))
