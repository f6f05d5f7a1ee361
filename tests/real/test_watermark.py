"""The capture by watermark passes an id only when no transaction can hold it any more."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import datetime
from threading import Event

import pytest

from app.control.source_state import WatermarkState
from app.settings import Settings
from source import guarantee, transactions, watermark
from source.mysql import connect
from source.watermark import Watermark
from tests.kit.eventually import eventually
from tests.kit.stack import Stack

AT = datetime(2026, 1, 31, 12)
COLUMNS = "order_id, product_name, user_id, price, ordered_at, payment_method"


#: No transaction of another test may be open beside a watermark: these tests run one after the other.
pytestmark = [pytest.mark.group("watermark"), pytest.mark.both_databases]


@pytest.fixture
def shop(watermark_stack: Stack) -> Stack:
    """A shop whose orders are numbered."""
    watermark_stack.create_numbered_orders()
    return watermark_stack


class Capture:
    """A watermark in a test: what it has published, and where it stands."""

    def __init__(self, shop: Stack, low: int = 0, version: int = 0, proven: bool = True, **env: str) -> None:
        self.settings = Settings.from_env({**shop.env, **env})
        self.connection = connect(self.settings)
        at = WatermarkState(table=f"{shop.name}.orders", low=low, version=version)
        self.watermark = Watermark(self.connection, self.settings, at, proven)
        self.orders: list[str] = []
        self.versions: list[int] = []

    def close(self) -> None:
        self.connection.close()

    def step(self) -> list[str]:
        """One turn of the loop."""
        rows = self.watermark.read_rows()
        self.watermark.mark_published(rows)
        found = [json.loads(row.payload)["order_id"] for row in rows]
        self.orders += found
        self.versions += [row.version for row in rows]
        return found

    def steps(self, seconds: float) -> None:
        """Some fifty turns a second, as a source takes them."""
        end, pause = time.monotonic() + seconds, Event()
        while time.monotonic() < end:
            self.step()
            pause.wait(0.02)

    @property
    def low(self) -> int:
        return self.watermark.resume_state().low

    def reaches(self, low: int, within: float = 15) -> None:
        """Turn until the watermark is there."""

        def there() -> None:
            self.step()
            assert self.low == low, self.low

        eventually(there, within)


@pytest.fixture
def capture(shop: Stack) -> Iterator[Capture]:
    """A capture that begins with an empty table."""
    one = Capture(shop)
    with closing(one):
        yield one


def begin(shop: Stack, stack: ExitStack, *orders: str):
    """A transaction that has inserted orders and is still open."""
    connection = stack.enter_context(closing(shop.connect()))
    with closing(connection.cursor()) as cursor:
        for name in orders:
            cursor.execute(f"INSERT INTO orders ({COLUMNS}) VALUES (%s, 'Phone', 'ann', 1, NOW(6), 'card')", (name,))
    return connection


def commit(shop: Stack, *orders: str) -> None:
    """Insert orders and commit them."""
    shop.insert(*[(name, "Phone", "ann", "1", AT, "card") for name in orders])


def test_a_later_commit_of_a_smaller_id_is_found_in_each_place(shop: Stack, capture: Capture):
    with ExitStack() as stack:
        first = begin(shop, stack, "a1")
        commit(shop, "b2")
        second = begin(shop, stack, "c3", "c4")
        third = begin(shop, stack, "d5")
        commit(shop, "e6")
        assert capture.step() == ["b2", "e6"]
        capture.steps(2.5)
        assert capture.low == 0
        second.commit()
        assert capture.step() == ["c3", "c4"]
        third.rollback()
        capture.steps(2.5)
        assert capture.low == 0, "the first is still open"
        first.commit()
        capture.reaches(6)
    assert sorted(capture.orders) == ["a1", "b2", "c3", "c4", "e6"]
    assert capture.versions == sorted(set(capture.versions))


def test_the_watermark_waits_only_for_transactions_that_were_open_when_their_ids_were_taken(
    shop: Stack, capture: Capture
):
    commit(shop, "a1")
    capture.step()
    with ExitStack() as stack:
        capture.reaches(1)
        begin(shop, stack, "later")
        capture.steps(1.5)
        assert capture.low == 1
        assert capture.watermark.age_s == 0


def test_an_open_transaction_that_only_reads_holds_nothing_up(shop: Stack, capture: Capture):
    with closing(shop.connect()) as dump, closing(dump.cursor()) as cursor:
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        cursor.execute("SELECT COUNT(*) FROM orders")
        cursor.fetchall()
        commit(shop, "a1")
        capture.reaches(1)


def test_an_open_transaction_of_another_table_delays_the_watermark_and_no_row(shop: Stack, capture: Capture):
    shop.execute("CREATE TABLE stock (n INT) ENGINE=InnoDB")
    with closing(shop.connect()) as other, closing(other.cursor()) as cursor:
        cursor.execute("INSERT INTO stock VALUES (1)")
        commit(shop, "a1")
        assert capture.step() == ["a1"]
        capture.steps(2)
        assert capture.low == 0
        assert capture.watermark.age_s > 0.5
        other.commit()
        capture.reaches(1)


def test_holes_cost_nothing_however_wide_and_many(shop: Stack, capture: Capture):
    commit(shop, "a1")
    shop.execute("ALTER TABLE orders AUTO_INCREMENT = 5000000000")
    commit(shop, "b")
    for number in range(300):
        shop.execute(f"INSERT INTO orders ({COLUMNS}, id) VALUES (%s, 'Phone', 'ann', 1, NOW(6), 'card', %s)",
                     (f"c{number}", 6_000_000_000 + 10 * number))  # fmt: skip
    with ExitStack() as stack:
        slow = stack.enter_context(closing(shop.connect()))
        with closing(slow.cursor()) as cursor:
            cursor.execute(f"INSERT INTO orders ({COLUMNS}, id) VALUES ('slow', '', 'a', 1, NOW(6), '', 6000000995)")
        capture.steps(2)
        assert len(capture.orders) == 302
        slow.commit()
        capture.reaches(6_000_002_990)
    assert sorted(capture.orders) == sorted(["a1", "b", "slow", *[f"c{number}" for number in range(300)]])


def test_what_was_ignored_or_rolled_back_leaves_a_hole_that_is_passed(shop: Stack, capture: Capture):
    commit(shop, "a1")
    shop.execute(f"INSERT IGNORE INTO orders ({COLUMNS}) VALUES ('a1', 'Phone', 'ann', 1, NOW(6), 'card'),"
                 " ('b', 'Phone', 'ann', 1, NOW(6), 'card'), ('a1', 'Phone', 'ann', 1, NOW(6), 'card')")  # fmt: skip
    with ExitStack() as stack:
        begin(shop, stack, "gone").rollback()
    commit(shop, "c")
    capture.step()
    (highest,) = shop.select("SELECT MAX(id) FROM orders")
    capture.reaches(highest[0])
    assert capture.orders == ["a1", "b", "c"]


def test_after_a_restart_it_goes_on_from_its_position_with_greater_versions(shop: Stack, capture: Capture):
    with ExitStack() as stack:
        commit(shop, "a1")
        capture.reaches(1)
        slow = begin(shop, stack, "slow")
        commit(shop, "c3", "c4")
        capture.step()
        capture.steps(1.5)
        at = capture.watermark.resume_state()
        assert at.low == 1
        again = Capture(shop, low=at.low, version=at.version)
        stack.callback(again.close)
        assert again.step() == ["c3", "c4"], "they are published again, which changes nothing"
        assert min(again.versions) > max(capture.versions)
        slow.commit()
        again.reaches(4)
        assert again.orders == ["c3", "c4", "slow"]


def test_tiny_batches_find_everything_too(shop: Stack):
    dice = random.Random(5)
    one = Capture(shop, LATELY_SOURCE_BATCH_ROWS="3")
    with closing(one), ExitStack() as stack:
        open_ones, committed = [], []
        for number in range(400):
            names = [f"t{number}-{line}" for line in range(dice.randrange(1, 5))]
            open_ones.append((begin(shop, stack, *names), names))
            while len(open_ones) > dice.randrange(1, 9):
                connection, names = open_ones.pop(dice.randrange(len(open_ones)))
                if dice.random() < 0.2:
                    connection.rollback()
                else:
                    connection.commit()
                    committed += names
                connection.close()
            one.step()
        for connection, names in open_ones:
            connection.commit()
            committed += names
        (highest,) = shop.select("SELECT MAX(id) FROM orders")
        eventually(lambda: one.step() == [], within=20)
        one.reaches(highest[0], within=30)
        assert sorted(one.orders) == sorted(committed), "each exactly once"


def test_without_proof_a_hole_is_passed_only_after_the_time_to_settle(shop: Stack):
    one = Capture(shop, proven=False, LATELY_SOURCE_SETTLE_S="3")
    with closing(one), ExitStack() as stack:
        slow = begin(shop, stack, "slow")
        commit(shop, "b2")
        one.steps(2)
        assert one.low == 0
        slow.commit()
        one.reaches(2)
        assert sorted(one.orders) == ["b2", "slow"]


def test_a_user_who_may_only_read_gets_every_row(shop: Stack):
    user = f"r{shop.name[1:]}"
    reader = {"LATELY_MYSQL_USER": user, "LATELY_MYSQL_PASSWORD": "secret"}
    shop.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'")
    try:
        shop.execute(f"GRANT SELECT ON `{shop.name}`.orders TO '{user}'@'%'")
        with closing(Capture(shop, **reader)) as one:
            promised = guarantee.assess(one.connection, one.settings)
            assert promised.level == "timed"
            assert any("PROCESS" in reason for reason in promised.reasons)
        # On MySQL the second one proves that the server is no replica.
        shop.execute(f"GRANT PROCESS, REPLICATION CLIENT ON *.* TO '{user}'@'%'")
        with closing(Capture(shop, **reader)) as one, ExitStack() as stack:
            assert guarantee.assess(one.connection, one.settings).level == "proven"
            slow = begin(shop, stack, "slow")
            commit(shop, "b")
            one.steps(2)
            assert one.low == 0
            slow.commit()
            one.reaches(2)
            assert sorted(one.orders) == ["b", "slow"]
    finally:
        shop.execute(f"DROP USER '{user}'@'%'")


def test_when_the_list_of_transactions_is_kept_old_by_others_the_source_does_not_trust_it(shop: Stack, monkeypatch):
    monkeypatch.setattr(transactions, "_read_transactions", lambda connection: [])
    monkeypatch.setattr(transactions, "_LIST_REFRESH_S", 0.01)
    monkeypatch.setattr(transactions, "_PAUSE_GROWTH_S", 0.0)
    one = Capture(shop, LATELY_SOURCE_SETTLE_S="2")
    with closing(one):
        with pytest.raises(transactions.TransactionListUnavailable, match="more than ten times a second"):
            transactions.read_writing_transactions(one.settings)
        promised = guarantee.assess(one.connection, one.settings)
        assert promised.level == "timed"
        commit(shop, "a1")
        one.reaches(1)
        assert not one.watermark.proven


def test_sources_that_share_a_server_all_get_a_list_of_transactions_that_is_up_to_date(shop: Stack):
    settings = Settings.from_env(shop.env)

    def read_often() -> None:
        for _ in range(8):
            transactions.read_writing_transactions(settings)

    with ThreadPoolExecutor(8) as sources:
        for reading in [sources.submit(read_often) for _ in range(8)]:
            reading.result()


def test_where_a_watermark_begins_every_transaction_of_before_has_ended(shop: Stack):
    commit(shop, "a1")
    settings = Settings.from_env(shop.env)
    said = []
    with ExitStack() as stack, closing(connect(settings)) as connection:
        slow = begin(shop, stack, "slow")
        commit(shop, "c3")

        def say(line: str) -> None:
            said.append(line)
            slow.commit()

        at = watermark.find_start(connection, settings, True, say)
        assert said == ["waiting for 1 open transactions to end"]
        assert at.low == 3


@pytest.mark.parametrize("kind", ["INT", "BIGINT", "BIGINT UNSIGNED", "MEDIUMINT UNSIGNED"])
def test_it_begins_with_every_integer_type_at_a_position_that_can_be_remembered(shop: Stack, kind: str):
    shop.execute(f"ALTER TABLE orders MODIFY id {kind} NOT NULL AUTO_INCREMENT")
    commit(shop, "a1")
    settings = Settings.from_env(shop.env)
    with closing(connect(settings)) as connection:
        at = watermark.find_start(connection, settings, True, print)
    assert type(at.low) is int
    assert at.low == 1
