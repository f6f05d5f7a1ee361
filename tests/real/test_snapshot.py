"""A snapshot publishes every row once, whatever the primary key, beside a shop that goes on writing."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from app.control import source_state, state_topic
from app.errors import BadSource
from app.settings import Settings
from source import locks, snapshot
from source.mysql import connect
from source.setup import setup
from tests.kit.depth import IS_FULL
from tests.kit.eventually import eventually
from tests.kit.sql import numbers
from tests.kit.stack import PYTHON, ROOT, LocalProcess, Stack

COLUMNS = "order_id, product_name, user_id, price, ordered_at, payment_method"
DATA = (
    "product_name VARCHAR(80), user_id VARCHAR(20), price DECIMAL(9,2), ordered_at DATETIME(6),"
    " payment_method VARCHAR(20), category VARCHAR(20)"
)
pytestmark = [pytest.mark.both_databases, pytest.mark.slow_on("mariadb")]

#: Small chunks, except in `make test-slow`.
CHUNK_ROWS = snapshot.CHUNK_ROWS if IS_FULL else 300
#: More than two chunks, and no multiple of one.
ROWS = 2 * CHUNK_ROWS + 77


@pytest.fixture(autouse=True)
def _chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_ROWS", CHUNK_ROWS)


def quiet(_: str) -> None:
    """Where the commands say what they did."""


def fill(stack: Stack, columns: str, values: str, rows: int = ROWS) -> None:
    """Insert rows in one statement; `n` counts them from 1."""
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"INSERT INTO orders ({columns}) SELECT {values} FROM {numbers(rows)} AS counted")
        connection.commit()


def plain(stack: Stack, rows: int = ROWS, age: str = "1 HOUR") -> None:
    """Orders of so long ago in the demo shop's table."""
    fill(stack, COLUMNS, "CONCAT('o', LPAD(n, 6, '0')), 'Phone', CONCAT('user-', n % 50), n % 100,"
         f" UTC_TIMESTAMP(6) - INTERVAL {age}, 'card'", rows)  # fmt: skip


#: The type of the order's id, the rest of the table, and an expression of n for it.
KEYS = {
    "integer": ("BIGINT", "PRIMARY KEY (order_id)", "n * 7 - 100"),
    "unsigned": ("BIGINT UNSIGNED", "PRIMARY KEY (order_id)", "18446744073709551615 - n"),
    "decimal": ("DECIMAL(30,0)", "PRIMARY KEY (order_id)", "10000000000000000000000 + n"),
    "composite": ("INT", "PRIMARY KEY (user_id, order_id, product_name)", "n"),
    "collated text": (
        "VARCHAR(40) COLLATE utf8mb4_general_ci",
        "PRIMARY KEY (order_id)",
        "CONCAT(ELT(1 + n % 6, 'ä', 'B', 'b_', 'Z', 'ö%', '''\\\\'), n)",
    ),
    "Latin text": (
        "VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german1_ci",
        "PRIMARY KEY (order_id)",
        "CONCAT(ELT(1 + n % 4, 'ä', 'B', 'ß', 'é'), n)",
    ),
    "text that is compared in bytes": (
        "VARCHAR(40) COLLATE utf8mb4_bin",
        "PRIMARY KEY (order_id)",
        "CONCAT(ELT(1 + n % 4, 'ä', 'A', 'a', '😀'), n)",
    ),
    "binary": ("INT", "code BINARY(16) NOT NULL DEFAULT (UNHEX(REPLACE(UUID(), '-', ''))), PRIMARY KEY (code)", "n"),
    "bytes": ("INT", "code VARBINARY(9) DEFAULT 'x', PRIMARY KEY (code, order_id)", "n"),
    "moment": ("INT", "PRIMARY KEY (ordered_at, order_id)", "n"),
    "list of words": (
        "INT",
        "size ENUM('small', 'medium', 'large') DEFAULT 'small', PRIMARY KEY (size, order_id)",
        "n",
    ),
    "none": ("INT", "KEY (user_id)", "n"),
}


@pytest.mark.parametrize("key", KEYS)
def test_every_row_is_published_once_whatever_the_primary_key(stack: Stack, settings: Settings, key: str):
    kind, rest, value = KEYS[key]
    stack.execute(f"CREATE TABLE orders (order_id {kind}, {DATA}, {rest}) ENGINE=InnoDB")
    fill(stack, COLUMNS, f"{value}, 'Phone', CONCAT('user-', n % 50), n % 100,"
         " '2026-01-31' + INTERVAL n DIV 3 MICROSECOND, 'card'")  # fmt: skip
    taken = setup_all(settings)
    assert taken.rows == ROWS
    assert len(stack.events()) == ROWS
    stack.assert_topic_equals_sql()


def setup_all(settings: Settings) -> source_state.SnapshotState:
    """Set the table up with all its rows, and return what is known of the snapshot."""
    setup(settings, None, quiet)
    return asyncio.run(state_topic.read(settings)).snapshot


def test_rows_that_are_changed_removed_and_added_meanwhile_are_in_the_end_as_sql_has_them(stack: Stack):
    stack.create_orders()
    plain(stack, 5_000)
    stopping = threading.Event()

    def trade(writer: int) -> None:
        dice = random.Random(writer)
        with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
            while not stopping.is_set():
                name = f"o{dice.randrange(1, 6_000):06}"
                cursor.execute(dice.choice([
                    f"UPDATE orders SET price = {dice.randrange(999)} WHERE order_id = '{name}'",
                    f"UPDATE orders SET user_id = 'user-{dice.randrange(50)}' WHERE order_id = '{name}'",
                    f"UPDATE IGNORE orders SET order_id = 'o{dice.randrange(6_000):06}' WHERE order_id = '{name}'",
                    f"DELETE FROM orders WHERE order_id = '{name}'",
                    f"INSERT IGNORE INTO orders ({COLUMNS}) VALUES ('{name}', 'Phone', 'ann', 1, UTC_TIMESTAMP(6), '')",
                ]))  # fmt: skip
                stopping.wait(dice.random() * 0.005)
                connection.rollback() if dice.random() < 0.1 else connection.commit()

    with ThreadPoolExecutor() as pool:
        traders = [pool.submit(trade, number) for number in range(4)]
        try:
            eventually(lambda: stack.select("SELECT COUNT(*) <> 5000 FROM orders") == [(1,)])
            stack.setup(since=None)
            stack.source()
            for _ in range(2):
                again = stack.lately("source", "snapshot", "--all")
                assert again.child.returncode == 0, again.tail()
        finally:
            stopping.set()
        for trader in traders:
            trader.result()
    eventually(stack.outbox_is_empty, within=30)
    stack.assert_topic_equals_sql()


@pytest.mark.one_database("the saved progress is in Kafka; the other tests read from each type of key on both")
def test_a_snapshot_that_was_killed_goes_on_where_it_was(stack: Stack, settings: Settings):
    stack.create_orders()
    rows = 4 * snapshot.SAVE_EVERY_ROWS
    plain(stack, rows)
    stack.execute("UPDATE orders SET ordered_at = '2020-01-01' LIMIT 10")
    stack.setup(since="1m")
    # The live stream would be in the way of counting.
    first = LocalProcess("first", [PYTHON, "-m", "app", "source", "snapshot", "--all"], stack.folder,
                         env=stack.env, cwd=ROOT)  # fmt: skip
    stack.processes.append(first)
    first.start()
    eventually(lambda: stack.high_watermark("orders") > 1.3 * snapshot.SAVE_EVERY_ROWS, within=60)
    first.kill()
    stopped = asyncio.run(state_topic.read(settings)).snapshot
    assert not stopped.is_done
    assert snapshot.SAVE_EVERY_ROWS <= stopped.rows < rows
    assert stack.status()["snapshot"].startswith("not finished")
    before = stack.high_watermark("orders")
    second = stack.lately("source", "snapshot", "--all")
    assert second.child.returncode == 0, second.tail()
    assert f"{rows} rows are published" in second.tail()
    assert stack.high_watermark("orders") - before == rows - stopped.rows
    assert "\r" not in second.tail(), "it is no terminal"
    assert stack.status()["snapshot"] == "done"
    assert stack.status()["snapshot_rows"] == rows
    stack.assert_topic_equals_sql()
    before = stack.high_watermark("orders")
    assert stack.lately("source", "snapshot", "--all", "--restart").child.returncode == 0
    assert stack.high_watermark("orders") - before == rows


def test_only_the_rows_that_were_asked_for_are_published_and_a_dry_run_publishes_none(stack: Stack):
    stack.create_orders()
    plain(stack, 30)
    plain_old = "CONCAT('old', n), 'Phone', 'bob', 1, UTC_TIMESTAMP(6) - INTERVAL 3 DAY, 'card'"
    fill(stack, COLUMNS, plain_old, 7)
    stack.setup(since="1m")
    assert stack.high_watermark("orders") == 0
    for words, rows in [
        ((), 30),
        (("--since", "2d"), 30),
        (("--since", "1w"), 37),
        (("--all",), 37),
        (("--where", "user_id = 'bob' OR price < 4"), 10),
        (("--where", "user_id = 'bob' OR price < 4", "--since", "1d"), 3),
        (("--where", "1 = 0"), 0),
    ]:
        before = stack.high_watermark("orders")
        dry = stack.lately("source", "snapshot", "--dry-run", *words)
        assert dry.tail(1).startswith(f"{rows} rows of orders would be published"), (words, dry.tail())
        assert stack.high_watermark("orders") == before
        taken = stack.lately("source", "snapshot", *words)
        assert f"{rows} rows are published" in taken.tail(), words
        assert stack.high_watermark("orders") == before + rows
    for words in (("--since", "yesterday"), ("--since", "1d", "--all"), ("--where", "no_such_column = 1")):
        refused = stack.lately("source", "snapshot", *words)
        assert refused.child.returncode == 2, words
        assert "Traceback" not in refused.tail()


def test_a_condition_with_percent_signs_chooses_the_same_rows_in_every_chunk(stack: Stack, settings: Settings):
    stack.create_orders()
    setup(settings, "1m", quiet)
    plain(stack)
    stack.execute("UPDATE orders SET product_name = 'blue shoe' WHERE order_id > 'o000010'")
    taken = asyncio.run(snapshot.run(settings, where="product_name LIKE '%shoe'"))
    assert taken.rows == ROWS - 10


def test_only_one_snapshot_of_a_table_runs_at_a_time(stack: Stack, settings: Settings):
    stack.create_orders()
    setup(settings, "1m", quiet)
    with closing(connect(settings)) as other:
        held = locks.acquire(other, settings, locks.SNAPSHOT, 0)
        assert held is not None
        holder = rf"another snapshot of this table is running \(.*:{os.getpid()} since "
        with pytest.raises(BadSource, match=holder):
            asyncio.run(snapshot.run(settings))
        held.release()


def test_the_state_remembers_a_key_of_each_type(stack: Stack, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "SAVE_EVERY_ROWS", 1)
    stack.execute(
        f"CREATE TABLE orders (order_id INT, {DATA}, code VARBINARY(9), at TIMESTAMP(6) NOT NULL DEFAULT NOW(6),"
        " PRIMARY KEY (product_name, code, at, order_id)) ENGINE=InnoDB"
    )
    fill(
        stack, f"{COLUMNS}, code", "n, CONCAT('Käse ', n % 3), 'ann', 1, NOW(6), 'card', UNHEX(LPAD(HEX(n % 7), 4, 0))"
    )
    setup(settings, "1m", quiet)

    class Stopped(Exception):
        pass

    def stop(rows: int, _: int) -> None:
        if rows > CHUNK_ROWS:
            raise Stopped

    with pytest.raises(Stopped):
        asyncio.run(snapshot.run(settings, progress=stop))
    stopped = asyncio.run(state_topic.read(settings)).snapshot
    assert stopped.rows == CHUNK_ROWS
    taken = asyncio.run(snapshot.run(settings))
    assert taken.rows == ROWS
    stack.assert_topic_equals_sql()
