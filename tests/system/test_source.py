"""`lately source` misses no row: late commits, many writers, kill -9, servers that go away, two sources at once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import mysql.connector
import pytest
from confluent_kafka import KafkaException

from local.artifacts import Artifacts
from local.database import start_database
from local.database_server import DatabaseServer
from local.kafka import start_kafka
from local.process import LocalProcess, find_free_port
from tests.kit.eventually import eventually
from tests.kit.orders import count_published
from tests.kit.stack import Servers, Stack

AT = datetime(2026, 1, 31, 12)
COLUMNS = "order_id, product_name, user_id, price, ordered_at, payment_method"
#: No transaction of another test may be open beside a watermark: these tests run one after the other.
WATERMARK = pytest.mark.group("watermark")
pytestmark = pytest.mark.both_databases
MODES = ("outbox", pytest.param("watermark", marks=WATERMARK))
WRITERS = 8
MIB = 2**20
#: The numbers of the errors "The table is full" and "Deadlock found".
FULL, DEADLOCK = 1114, 1213


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each mode of the source."""
    return request.param


@pytest.fixture
def mode_stack(mode: str, database_product: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """A stack without a table, on the servers for the mode."""
    servers: Servers = request.getfixturevalue("watermark_servers" if mode == "watermark" else "servers")
    with Stack(servers, tmp_path) as stack:
        yield stack


@pytest.fixture
def shop(mode_stack: Stack, mode: str) -> Stack:
    """A shop that is set up, in each mode."""
    return ready(mode_stack, mode)


def ready(stack: Stack, mode: str) -> Stack:
    """Create the table that the mode follows, and set it up."""
    if mode == "watermark":
        stack.create_numbered_orders()
    else:
        stack.create_orders()
    stack.setup()
    return stack


def order(number: int, user: str = "ann") -> tuple:
    """One of the rows that Stack.insert takes."""
    return (f"o{number:05}", "Phone", user, "19.90", AT, "card")


def seen(stack: Stack) -> set[str]:
    """The orders in the topic."""
    return {event["data"]["order_id"] for event in stack.events()}


def outlives(process: LocalProcess, seconds: float) -> bool:
    """Whether the process is still there after so many seconds."""
    with suppress(subprocess.TimeoutExpired):
        process.child.wait(seconds)
    return process.is_running


@contextmanager
def open_transaction(stack: Stack, *orders: str) -> Iterator:
    """A connection that has inserted orders, and has not committed them."""
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        for name in orders:
            cursor.execute(f"INSERT INTO orders ({COLUMNS}) VALUES (%s, 'Phone', 'ann', 1, NOW(6), 'card')", (name,))
        yield connection


def test_a_transaction_that_commits_late_is_published_and_holds_up_no_other(shop: Stack):
    shop.source()
    with open_transaction(shop, "slow") as slow:
        shop.insert(order(1))
        eventually(lambda: seen(shop) == {"o00001"}, within=10)
        shop.insert(order(2))
        eventually(lambda: seen(shop) == {"o00001", "o00002"}, within=2)
        slow.commit()
    eventually(lambda: seen(shop) == {"slow", "o00001", "o00002"}, within=5)
    shop.assert_topic_equals_sql()


@pytest.mark.one_database("`real/test_watermark.py` opens such transactions on both; here the source is killed")
@WATERMARK
def test_the_watermark_stays_below_an_open_transaction_also_over_a_kill(watermark_stack: Stack):
    stack = ready(watermark_stack, "watermark")
    source = stack.source()
    stack.insert(order(0))
    eventually(lambda: stack.watermark() == 1, within=20)
    with open_transaction(stack, "slow") as slow:
        stack.insert(*map(order, range(1, 50)))
        eventually(lambda: len(seen(stack)) == 50, within=5)
        assert outlives(source, 2)
        assert stack.watermark() == 1
        source.kill()
        source = stack.source()
        stack.insert(order(50))
        eventually(lambda: "o00050" in seen(stack), within=15)
        assert outlives(source, 2)
        assert stack.watermark() == 1
        source.kill()
        slow.commit()
    stack.source()
    eventually(lambda: "slow" in seen(stack), within=15)
    eventually(lambda: stack.watermark() == 52, within=15)
    stack.assert_topic_equals_sql()


@pytest.mark.slow_on("mariadb")
@pytest.mark.cost(20)
@pytest.mark.parametrize(("kills", "rows"), [(3, 1_500), pytest.param(8, 4_000, marks=pytest.mark.slow)])
def test_a_source_killed_at_any_moment_under_eight_writers_publishes_exactly_what_was_committed(
    shop: Stack, kills: int, rows: int
):
    mode = shop.env.get("LATELY_SOURCE_MODE", "outbox")
    dice = random.Random(11)
    with writing(shop, changes=mode == "outbox") as (writers, committed):
        for _ in range(kills):
            source = shop.source(LATELY_SOURCE_BATCH_ROWS=str(dice.choice([7, 50, 500])))
            if dice.random() < 0.25:
                outlives(source, dice.random() * 2)
            else:
                least = count_published(shop) + dice.randrange(1, 300)
                eventually(lambda least=least: count_published(shop) >= least, within=60)
            assert source.is_running, source.tail()
            source.kill()
        eventually(lambda: sum(committed) >= rows or any(writer.done() for writer in writers), within=300)
    last = shop.source()
    eventually(shop.assert_topic_equals_sql, within=60)
    assert shop.records("orders-dead") == []
    if mode == "outbox":
        eventually(shop.outbox_is_empty, within=10)
        assert versions_ascend(shop.events())
    else:
        names = {(event["data"]["order_id"], event["data"]["product_name"]) for event in shop.events()}
        assert names == set(shop.select("SELECT order_id, product_name FROM orders"))
    assert last.is_running


@contextmanager
def writing(stack: Stack, changes: bool) -> Iterator[tuple[list[Future], list[int]]]:
    """Customers who write until the end of the block; yields them, and how many rows each has committed."""
    stopping, rows = threading.Event(), [0] * WRITERS
    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(write, stack, writer, rows, stopping, changes) for writer in range(WRITERS)]
        try:
            yield writers, rows
        finally:
            stopping.set()
        for writer in writers:
            writer.result()


def write(stack: Stack, writer: int, rows: list[int], stopping: threading.Event, changes: bool) -> None:
    """One of many customers at once; a tenth of the transactions is rolled back, a few last for seconds."""
    dice, number = random.Random(writer), 0
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        while not stopping.is_set():
            number += 1
            name = f"w{writer}-{number}"
            inserted = 0
            try:
                for statement in statements(dice, name, f"w{writer}-{dice.randrange(max(1, number - 40), number + 1)}",
                                            changes):  # fmt: skip
                    cursor.execute(statement)
                    inserted += max(cursor.rowcount, 0)
                    stopping.wait(dice.random() * 0.02)
            except mysql.connector.Error as exc:
                # Without triggers Lately only reads: the customers lock each other out, in MySQL's unique index.
                if changes or exc.errno != DEADLOCK:
                    raise
                connection.rollback()
                continue
            if dice.random() < 0.005:
                stopping.wait(4)
            if dice.random() < 0.1:
                connection.rollback()
            else:
                connection.commit()
                rows[writer] += inserted


def statements(dice: random.Random, name: str, other: str, changes: bool) -> list[str]:
    """What one transaction does: new rows, and changes of the rows of another order of the same customer."""
    user, price = f"user-{dice.randrange(50)}", dice.randrange(10_000) / 100
    lines = [f"('{name}', 'Phone {line}', '{user}', {price}, NOW(6), 'card')" for line in range(dice.randrange(1, 6))]
    found = [f"INSERT IGNORE INTO orders ({COLUMNS}) VALUES {', '.join(lines)}, {lines[0]}"]
    if dice.random() < 0.3:
        # Of these, the first is there already.
        found.append(f"INSERT IGNORE INTO orders ({COLUMNS}) VALUES {lines[0]}, ('{name}', 'Case', '{user}', 1, NOW(6),"
                     " NULL)")  # fmt: skip
    if changes and dice.random() < 0.5:
        found.append(
            dice.choice([
                f"UPDATE orders SET price = {price} WHERE order_id = '{other}'",
                f"UPDATE orders SET user_id = '{user}' WHERE order_id = '{other}'",
                f"UPDATE orders SET order_id = '{other}x' WHERE order_id = '{other}'",
                f"UPDATE orders SET product_name = CONCAT(product_name, '!') WHERE order_id = '{other}'",
                f"DELETE FROM orders WHERE order_id = '{other}' LIMIT 1",
                f"REPLACE INTO orders ({COLUMNS}) VALUES ('{other}', 'Phone 0', '{user}', {price}, NOW(6), 'coins')",
                f"INSERT INTO orders ({COLUMNS}) VALUES ('{other}', 'Phone 1', '{user}', 2, NOW(6), 'coins')"
                f" ON DUPLICATE KEY UPDATE price = {price}, category = 'gifts'",
            ])
        )  # fmt: skip
    return found


def versions_ascend(events: list[dict]) -> bool:
    """Whether of each purchase the versions, each at its first appearance in a partition, are in ascending order."""
    last, known = {}, set()
    for event in events:
        data = event["data"]
        name = (event["partition"], data["order_id"], data["product_name"])
        if (name, data["version"]) in known:
            continue
        known.add((name, data["version"]))
        if data["version"] < last.get(name, 0):
            return False
        last[name] = data["version"]
    return True


@pytest.mark.parametrize("seconds", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_a_transaction_that_stays_open_for_long_loses_nothing_and_delays_nobody(shop: Stack, seconds: float):
    port = find_free_port()
    source = shop.source(LATELY_SOURCE_METRICS_PORT=str(port))
    with open_transaction(shop, "slow") as slow:
        for number in range(4):
            shop.insert(order(number))
            eventually(lambda number=number: f"o{number:05}" in seen(shop), within=2 if number else 10)
            assert outlives(source, seconds / 4)
        standing = shop.status()
        assert standing["oldest_transaction_s"] >= seconds * 0.9
        if standing["mode"] == "watermark":
            assert standing["watermark"] == 0
            assert metric(port, "lately_source_watermark_age_seconds") >= seconds / 2
        slow.commit()
    eventually(lambda: "slow" in seen(shop), within=5)
    shop.assert_topic_equals_sql()


def metric(port: int, name: str) -> float:
    """The value of a metric of the source; its labels, if it has any, are part of `name`."""
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def test_changes_moves_and_removals_show_in_the_view(stack: Stack):
    ready(stack, "outbox")
    stack.source()
    worker = stack.worker().start().wait_ready()
    stack.insert(order(1), order(2), order(3), order(4))
    eventually(lambda: len(worker.purchases("ann")) == 4, within=20)
    stack.execute("UPDATE orders SET price = 5, payment_method = NULL WHERE order_id = 'o00001'")
    stack.execute("UPDATE orders SET user_id = 'bob' WHERE order_id = 'o00002'")
    stack.execute("DELETE FROM orders WHERE order_id = 'o00003'")
    stack.execute("UPDATE orders SET order_id = 'o00009', product_name = 'Kite' WHERE order_id = 'o00004'")
    eventually(lambda: stack.assert_equal_to_sql(worker, ["ann", "bob"]), within=20)
    moved = [(event["type"], event["data"]["user_id"]) for event in stack.events()
             if event["data"]["order_id"] == "o00002"]  # fmt: skip
    assert sorted(moved) == [("order.placed", "ann"), ("order.placed", "bob"), ("order.removed", "ann")]


@pytest.mark.slow
@pytest.mark.one_database("Kafka is away, not the database")
@pytest.mark.cost(35)
def test_while_kafka_is_away_the_memory_stays_flat_and_afterwards_everything_arrives_in_order(
    artifacts: Artifacts, database: dict, tmp_path: Path
):
    with start_kafka(artifacts, tmp_path / "own") as kafka:
        with Stack(Servers(kafka.address, **database), tmp_path) as stack:
            ready(stack, "outbox")
            source = stack.source()
            stack.insert(*map(order, range(100)))
            eventually(stack.outbox_is_empty, within=20)
            before = resident(source)
            kafka.kill()
            for number in range(100, 3_000, 100):
                stack.insert(*map(order, range(number, number + 100)))
                stack.execute("UPDATE orders SET price = price + 1 WHERE order_id >= %s", (f"o{number:05}",))
            assert outlives(source, 12), source.tail()
            assert resident(source) - before < 50 * MIB
            (waiting,) = stack.select(f"SELECT COUNT(*) FROM {stack.outbox()}")
            assert waiting[0] == 2 * 2_900
            kafka.start()
            eventually(stack.outbox_is_empty, within=90)
            stack.assert_topic_equals_sql()
            assert versions_ascend(stack.events())
            assert resident(source) - before < 50 * MIB
            assert source.is_running


@pytest.mark.slow
@pytest.mark.one_database("the limited file and its error 1114 belong to InnoDB, which both servers contain")
@pytest.mark.cost(23)
def test_a_full_disk_under_the_outbox_refuses_orders_but_loses_none(
    artifacts: Artifacts, database_artifacts: Artifacts, tmp_path: Path
):
    # The shop's tables and the outbox share a file that may not grow beyond 24 MiB.
    one_file = ("--innodb-file-per-table=0", "--innodb-data-file-path=ibdata1:12M:autoextend:max:24M")
    with (
        start_kafka(artifacts, tmp_path / "own") as kafka,
        start_database(database_artifacts, tmp_path / "own", None, *one_file) as server,
        Stack(Servers(kafka.address, server.host, server.port, server.user, server.password), tmp_path) as stack,
    ):
        ready(stack, "outbox")
        source = stack.source()
        stack.insert(order(0))
        eventually(stack.outbox_is_empty, within=20)
        before = resident(source)
        kafka.kill()
        number = 1
        while fits(stack, number):
            number += 500
        assert outlives(source, 2), source.tail()
        kafka.start()
        eventually(stack.outbox_is_empty, within=120)
        # What was published makes room for new orders.
        eventually(lambda: fits(stack, number), within=60)
        eventually(stack.outbox_is_empty, within=60)
        assert stack.select("SELECT COUNT(*) FROM orders") == [(number + 500,)]
        stack.assert_topic_equals_sql()
        assert resident(source) - before < 50 * MIB
        assert source.is_running


def fits(stack: Stack, number: int) -> bool:
    """Insert 500 orders from `number` on, in one transaction; False where there is no room for them."""
    try:
        stack.insert(*map(order, range(number, number + 500)))
    except mysql.connector.Error as exc:
        if exc.errno != FULL:
            raise
        return False
    return True


def resident(process: LocalProcess) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_source_whose_connections_are_killed_again_and_again_goes_on(shop: Stack):
    source = shop.source()
    for number in range(0, 90, 30):
        shop.insert(*map(order, range(number, number + 30)))
        eventually(lambda least=number + 30: len(seen(shop)) >= least, within=20)
        for (one,) in shop.select(
            "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        ):
            with suppress(mysql.connector.Error):  # some connections are short
                shop.execute(f"KILL CONNECTION {one}")
    shop.insert(order(100))
    eventually(shop.assert_topic_equals_sql, within=30)
    assert source.is_running
    assert "nothing is lost" in source.tail(200)


@pytest.mark.cost(15)
def test_a_restart_of_the_database_is_survived(own_database: tuple[DatabaseServer, Stack]):
    server, stack = own_database
    ready(stack, "outbox")
    source = stack.source()
    stack.insert(*map(order, range(50)))
    eventually(stack.outbox_is_empty, within=20)
    for end in (server.stop, server.kill):
        end()
        assert outlives(source, 1.5), source.tail()
        server.start()
        stack.insert(order(random.randrange(100, 90_000)))
        eventually(stack.outbox_is_empty, within=40)
    stack.assert_topic_equals_sql()
    assert source.is_running
    assert "trying again" in source.tail(200)


@pytest.mark.cost(17)
def test_an_xa_transaction_that_was_prepared_before_a_restart_is_not_passed(own_database: tuple[DatabaseServer, Stack]):
    server, stack = own_database
    ready(stack, "watermark")
    source = stack.source()
    eventually(lambda: "publishing" in source.tail(), within=30)  # one that starts without a database ends
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("XA START 'late'")
        cursor.execute(f"INSERT INTO orders ({COLUMNS}) VALUES ('slow', 'Phone', 'ann', 1, NOW(6), 'card')")
        cursor.execute("XA END 'late'")
        cursor.execute("XA PREPARE 'late'")
    server.kill()
    server.start()
    stack.insert(order(1))
    eventually(lambda: "o00001" in seen(stack), within=40)
    assert outlives(source, 4)
    assert stack.watermark() == 0
    assert stack.status()["guarantee"] == "proven"
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        connection.autocommit = True
        cursor.execute("XA COMMIT 'late'")
    eventually(stack.assert_topic_equals_sql, within=20)


@pytest.mark.cost(18)
def test_lock_waits_deadlocks_and_a_read_only_server_stop_it_only_for_as_long_as_they_last(
    own_database: tuple[DatabaseServer, Stack],
):
    _, stack = own_database
    ready(stack, "outbox")
    stack.execute("CREATE USER source@'%' IDENTIFIED BY 'secret'")
    stack.execute(f"GRANT SELECT, TRIGGER ON `{stack.name}`.* TO source@'%'")
    stack.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{stack.name}_lately`.* TO source@'%'")
    stack.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
    stack.insert(*map(order, range(10)))
    with closing(stack.connect()) as other, closing(other.cursor()) as cursor:
        cursor.execute(f"SELECT id FROM {stack.outbox()} ORDER BY id DESC LIMIT 1 FOR UPDATE")
        cursor.fetchall()
        source = stack.source(LATELY_MYSQL_USER="source", LATELY_MYSQL_PASSWORD="secret")
        eventually(lambda: "1205" in source.tail(400), within=20)
    eventually(stack.outbox_is_empty, within=20)
    stack.assert_topic_equals_sql()

    stack.execute("SET GLOBAL innodb_lock_wait_timeout = 20")
    source.kill()
    stack.insert(*map(order, range(10, 20)))
    deadlock(stack, lambda: stack.source(LATELY_MYSQL_USER="source", LATELY_MYSQL_PASSWORD="secret"))
    source = stack.processes[-1]
    eventually(lambda: "1213" in source.tail(400), within=20)
    eventually(stack.outbox_is_empty, within=20)
    stack.assert_topic_equals_sql()

    stack.execute("SET GLOBAL read_only = 1")
    stack.insert(*map(order, range(20, 30)))
    eventually(lambda: "1290" in source.tail(400) or "read-only" in source.tail(400), within=20)
    stack.execute("SET GLOBAL read_only = 0")
    eventually(stack.outbox_is_empty, within=30)
    stack.assert_topic_equals_sql()
    assert source.is_running


def deadlock(stack: Stack, start: Callable[[], LocalProcess]) -> None:
    """Let a source wait for the last row of the outbox, and then want its first one: it is the lighter of the two."""
    stack.execute("CREATE TABLE heavy (n INT PRIMARY KEY) ENGINE=InnoDB")
    with closing(stack.connect()) as other, closing(other.cursor()) as cursor:
        cursor.execute(f"INSERT INTO heavy VALUES {', '.join(f'({number})' for number in range(5_000))}")
        cursor.execute(f"SELECT id FROM {stack.outbox()} ORDER BY id DESC LIMIT 1 FOR UPDATE")
        cursor.fetchall()
        start()
        # Not innodb_trx: a server that is asked more than ten times a second answers from a buffer.
        waits = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'DELETE %outbox%' AND time >= 1"
        eventually(lambda: stack.select(waits) == [(1,)], within=20)
        cursor.execute(f"SELECT id FROM {stack.outbox()} ORDER BY id LIMIT 1 FOR UPDATE")
        cursor.fetchall()


POISON = {
    "no user": ("NULL", "'o1'", "'Phone'", "1", "NOW()"),
    "empty user": ("''", "'o2'", "'Phone'", "1", "NOW()"),
    "negative price": ("'ann'", "'o3'", "'Phone'", "-1", "NOW()"),
    "huge price": ("'ann'", "'o4'", "'Phone'", "1e30", "NOW()"),
    "no price": ("'ann'", "'o5'", "'Phone'", "NULL", "NOW()"),
    "very long name": ("'ann'", "'o6'", "REPEAT('x', 5000)", "1", "NOW()"),
    "enormous name": ("'ann'", "'o7'", "REPEAT('x', 3000000)", "1", "NOW()"),
    "zero date": ("'ann'", "'o8'", "'Phone'", "1", "'0000-00-00'"),
    "no date": ("'ann'", "'o9'", "'Phone'", "1", "NULL"),
    "control character in the user": ("'a\\tb'", "'o10'", "'Phone'", "1", "NOW()"),
}
ACCEPTED = {
    "spaces": ("' ann '", "' o1 '", "' Phone '", "1", "NOW()"),
    "quotes and backslashes": ("'ann'", r"'o\'\"\\'", r"'\"\\/\'%s %'", "1", "NOW()"),
    "control characters": ("'ann'", "'o12'", r"'\n\t\0\Z'", "1", "NOW()"),
    "emoji": ("'añ😀'", "'o13'", "'Käse 😀'", "1", "NOW()"),
}


def test_rows_that_break_a_rule_become_dead_letters_while_the_source_goes_on(mode_stack: Stack, mode: str):
    stack = mode_stack
    number = ", id INT AUTO_INCREMENT PRIMARY KEY" if mode == "watermark" else ""
    stack.env["LATELY_SOURCE_MODE"] = mode
    stack.execute(
        "CREATE TABLE orders (user_id TEXT, order_id TEXT, product_name LONGTEXT, price DOUBLE,"
        f" ordered_at DATETIME, payment_method TEXT, category TEXT{number})"
    )
    stack.setup()
    port = find_free_port()
    source = stack.source(LATELY_SOURCE_METRICS_PORT=str(port))
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SET sql_mode = ''")
        for values in [*POISON.values(), *ACCEPTED.values()]:
            columns = "user_id, order_id, product_name, price, ordered_at, payment_method"
            cursor.execute(f"INSERT INTO orders ({columns}) VALUES ({', '.join(values)}, 'card')")
            connection.commit()
    stack.insert(("last", "Phone", "ann", "1", AT, "card"))
    eventually(lambda: "last" in seen(stack), within=20)
    eventually(lambda: len(stack.records("orders-dead")) >= len(POISON), within=5)
    letters = stack.records("orders-dead")
    assert len(letters) == len(POISON)
    reasons = Counter(dict(letter.headers())["__lately.errors.exception"].decode() for letter in letters)
    with pytest.raises(StopIteration):
        metric(port, "lately_ready")  # a worker's; as 0 it would be a false alarm
    assert {reason: metric(port, f'lately_dlq_records_total{{reason="{reason}"}}') for reason in reasons} == reasons
    names = stack.select("SELECT order_id, product_name FROM orders WHERE order_id NOT REGEXP '^o[0-9]0?$'")
    assert {(event["data"]["order_id"], event["data"]["product_name"]) for event in stack.events()} == set(names)
    assert len(names) == len(ACCEPTED) + 1
    assert source.is_running


def test_of_two_sources_one_publishes_and_the_other_takes_over_when_it_is_killed(shop: Stack):
    first = shop.source()
    eventually(lambda: "publishing" in first.tail(), within=20)
    second = shop.source()
    eventually(lambda: "waiting to take over" in second.tail(), within=20)
    shop.insert(*map(order, range(50)))
    eventually(lambda: len(seen(shop)) == 50, within=10)
    assert "publishing" not in second.tail()
    assert count_published(shop) == 50, "each once: only one publishes"
    leader = shop.status()["leader"]
    first.kill()
    shop.insert(order(50))
    eventually(lambda: "o00050" in seen(shop), within=5)
    eventually(lambda: shop.status()["leader"] != leader, within=10)
    shop.assert_topic_equals_sql()


def test_a_source_that_was_never_set_up_says_what_to_do(mode_stack: Stack, mode: str):
    stack = mode_stack
    if mode == "watermark":
        stack.create_numbered_orders()
    else:
        stack.create_orders()
    shown = stack.lately("source", "status", "--json")
    assert shown.child.returncode == 0, shown.tail()
    assert json.loads(shown.tail(1))["running"] is False
    source = stack.source()
    assert not outlives(source, 20)
    assert source.child.returncode == 2
    assert "lately source setup" in source.tail()


def test_setup_only_prints_and_teardown_leaves_a_shop_that_works(stack: Stack):
    stack.create_orders()
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
    printed = stack.lately("source", "setup", "--print-sql")
    assert printed.child.returncode == 0
    assert "TRIGGER `" in printed.tail(200)
    assert stack.select(tables) == [("orders",)]
    assert stack.select("SELECT * FROM information_schema.triggers WHERE trigger_schema = DATABASE()") == []
    with pytest.raises((KeyError, KafkaException)):
        stack.high_watermark("orders")

    assert stack.lately("source", "setup").child.returncode == 0
    stack.insert(order(1))
    refused = stack.lately("source", "teardown")
    assert refused.child.returncode == 2
    assert f"1 changes in {stack.name}_lately.purchase_outbox are not published yet" in refused.tail()
    assert stack.count_outbox() == 1
    assert stack.lately("source", "teardown", "--force").child.returncode == 0
    assert stack.select(tables) == [("orders",)]
    stack.insert(order(2))
    assert stack.lately("source", "teardown").child.returncode == 0, "again changes nothing"

    assert stack.lately("source", "setup", "--all").child.returncode == 0
    stack.source()
    stack.insert(order(3))
    stack.execute("UPDATE orders SET price = 3 WHERE order_id = 'o00001'")
    eventually(stack.assert_topic_equals_sql, within=20)


def test_teardown_loses_no_change_of_a_transaction_that_was_open(stack: Stack):
    ready(stack, "outbox")
    with open_transaction(stack, "slow") as slow, ThreadPoolExecutor() as pool:
        teardown = pool.submit(stack.lately, "source", "teardown")
        waits = (
            "SELECT COUNT(*) FROM information_schema.processlist"
            " WHERE state LIKE 'Waiting for table metadata lock' AND db = DATABASE()"
        )
        eventually(lambda: stack.select(waits) == [(1,)] or teardown.done(), within=20)
        slow.commit()
        ended = teardown.result()
    assert ended.child.returncode == 2, ended.tail()
    assert stack.count_outbox() == 1
