"""Whatever the shop's columns contain: all readers of a row show the same purchase, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext

import msgspec
import pytest

from app.control.source_state import SnapshotState, WatermarkState
from app.errors import BadSource
from app.settings import Settings
from app.topics import Topics
from domain.events import CHANGED, REMOVED, OrderEvent, read_event
from domain.purchases import Purchase, purchase_from_event
from domain.values import rfc3339
from source import order_lookup, triggers, user_rows
from source.check import check_source
from source.events import OutgoingRecord, build_records
from source.findings import Finding
from source.install import install
from source.mysql import Connection, connect
from source.outbox import Outbox, OutboxRow
from source.snapshot import Snapshot
from source.watermark import Watermark
from tests.kit.stack import Stack

pytestmark = pytest.mark.both_databases

#: The values of a type, and what Lately shows of each: None where it shows nothing.
PRICES = {
    "DECIMAL(65,30)": {"19.9": "19.90", "0": "0.00", "1e17": "100000000000000000.00", "1e18": None, "-5": None,
                       "0.0000000001": "0.0000000001", "0.00000000001": None, "NULL": None},
    "DECIMAL(38,16)": {"19.9": "19.90", "123456.0000001": "123456.0000001", "-0.0000001": None},
    "DECIMAL(30,2) ZEROFILL": {"19.9": "19.90"},
    "DECIMAL(12,2)": {"19.9": "19.90", "0": "0.00"},
    "DOUBLE": {"19.9": "19.9", "0.1": "0.1", "1e20": None, "1e17": "100000000000000000.00", "-0e0": "0.00",
               "1e-7": "0.0000001", "1e-11": None, "0.1e0 + 0.2e0": None},
    "FLOAT": {"19.9": "19.9", "0.1": "0.1", "1e16": "10000000000000000.00"},
    "INT ZEROFILL": {"20": "0000000020"},
    "BIGINT UNSIGNED": {"20": "20", "18446744073709551615": None},
}  # fmt: skip
ZERO, PARTIAL, YEAR_0 = "'0000-00-00 00:00:00'", "'2020-00-00'", "'0000-01-01'"
FRACTION, LAST = "'2026-01-31 12:00:00.123456'", "'9999-12-31 23:59:59.999999'"
TIMES = {
    "DATETIME(6)": {ZERO: None, PARTIAL: None, "'2020-01-00'": None, YEAR_0: None, "NULL": None,
                    "'0001-01-01'": "0001-01-01T00:00:00Z", "'0999-12-31 23:59:59'": "0999-12-31T23:59:59Z",
                    LAST: "9999-12-31T23:59:59.999999Z", FRACTION: "2026-01-31T12:00:00.123456Z"},
    "DATETIME": {ZERO: None, "'2026-01-31 12:00:00'": "2026-01-31T12:00:00Z"},
    # A value that a TIMESTAMP cannot hold becomes zero; on some servers it keeps its fraction.
    "TIMESTAMP(6) NULL": {ZERO: None, PARTIAL: None, YEAR_0: None, LAST: None, "NULL": None,
                          FRACTION: "2026-01-31T10:00:00.123456Z", "'1970-01-01 02:00:01'": "1970-01-01T00:00:01Z",
                          "'2038-01-19 05:14:07.999999'": "2038-01-19T03:14:07.999999Z"},
    "TIMESTAMP NULL": {ZERO: None, "'2026-06-30 12:00:00'": "2026-06-30T10:00:00Z"},
}  # fmt: skip
#: The time zone of the shop's sessions.
ZONE = "+02:00"


@pytest.fixture
def settings(stack: Stack) -> Settings:
    return Settings.from_env({**stack.env, "LATELY_SOURCE_ID": "id"})


@pytest.fixture
def connection(settings: Settings, stack: Stack) -> Iterator[Connection]:
    with closing(connect(settings)) as one:
        yield one


class Shop:
    """A shop that accepts all values, in a time zone of its own; its columns have the given types."""

    def __init__(self, stack: Stack, connection: Connection, settings: Settings, **types: str) -> None:
        self.stack, self.connection, self.settings = stack, connection, settings
        columns = {
            "order_id": "VARCHAR(64)", "product_name": "TEXT", "user_id": "VARCHAR(64)", "price": "DECIMAL(12,2)",
            "ordered_at": "DATETIME(6)", "payment_method": "VARCHAR(20)", "category": "VARCHAR(20)", **types,
        }  # fmt: skip
        names = ", ".join(f"{name} {type}" for name, type in columns.items())
        stack.execute(f"CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, {names}) ENGINE=InnoDB")

    def install(self) -> Shop:
        """Create the outbox and the triggers."""
        install(self.connection, self.settings)
        return self

    def execute(self, statement: str) -> None:
        with closing(self.stack.connect()) as shop, closing(shop.cursor()) as cursor:
            cursor.execute("SET sql_mode = ''")
            cursor.execute(f"SET time_zone = '{ZONE}'")
            cursor.execute(statement)
            shop.commit()

    def insert(self, **values: str) -> None:
        """Insert a row; values are expressions of SQL."""
        row = {"order_id": "'o1'", "product_name": "'Phone'", "user_id": "'ann'", "price": "1",
               "ordered_at": "'2026-01-31'", **values}  # fmt: skip
        self.execute(f"INSERT INTO orders ({', '.join(row)}) VALUES ({', '.join(row.values())})")

    def captured(self) -> list[OutboxRow]:
        """What the triggers have captured since the last call."""
        outbox = Outbox(self.connection, self.settings)
        rows = outbox.read_rows()
        outbox.mark_published(rows)
        return rows

    def publish(self, rows: list[OutboxRow]) -> list[OutgoingRecord]:
        """What the source publishes for rows."""
        topics = Topics(self.settings)
        return [record for row in rows for record in build_records(row, "/mysql/s/db/orders", topics, self.settings)]

    def purchases(self, rows: list[OutboxRow]) -> list[Purchase]:
        """The live purchases among the events that the source publishes for rows."""
        events = [read_event(record.key, record.value) for record in self.publish(rows) if record.event_id is not None]
        purchases = [purchase_from_event(event) for event in events if isinstance(event, OrderEvent)]
        return [purchase for purchase in purchases if purchase.live]

    def snapshot(self) -> list[OutboxRow]:
        """All rows as a snapshot reads them."""
        state = SnapshotState(table="", version=1)
        with closing(Snapshot(self.connection, self.settings, state)) as snapshot:
            return snapshot.read_chunk(None)[0]

    def borrow(self) -> AbstractContextManager[Connection]:
        """Lend the connection, as the pool of a worker does."""
        return nullcontext(self.connection)

    def shown(self, user_id: str = "ann") -> dict[str, dict[str | int, tuple[str, str]]]:
        """Reader -> order id -> price and time, without the orders that the reader does not show."""
        watermark = Watermark(self.connection, self.settings, WatermarkState(table="", low=0, version=0), proven=False)
        captured, taken = self.captured(), self.snapshot()
        orders = [str(msgspec.json.decode(row.payload)["order_id"]) for row in taken]
        traced = [
            row.purchase for order in orders for row in order_lookup.find_order(self.settings, order, self.borrow)[0]
        ]
        found = {
            "trigger": self.purchases(captured),
            "snapshot": self.purchases(taken),
            "watermark": self.purchases(watermark.read_rows()),
            "response from MySQL": user_rows.read_user_rows(self.settings, [user_id], self.borrow).purchases[user_id],
            "verification": user_rows.read_purchases(self.connection, self.settings, [user_id]).purchases[user_id],
            "trace": [purchase for purchase in traced if purchase is not None],
        }
        return {
            reader: {one.order_id: (one.price, rfc3339(one.ordered_at)) for one in purchases}
            for reader, purchases in found.items()
        }


@pytest.mark.parametrize("type", PRICES)
def test_all_readers_show_the_same_price_or_none(stack: Stack, connection: Connection, settings: Settings, type: str):
    shop = Shop(stack, connection, settings, price=type).install()
    for value in PRICES[type]:
        shop.insert(order_id=f'"{value}"', price=value)
    expected = {value: (price, "2026-01-31T00:00:00Z") for value, price in PRICES[type].items() if price is not None}
    shown = shop.shown()
    assert shown == dict.fromkeys(shown, expected)


@pytest.mark.parametrize("type", TIMES)
def test_all_readers_show_the_same_time_or_none(stack: Stack, connection: Connection, settings: Settings, type: str):
    shop = Shop(stack, connection, settings, ordered_at=type).install()
    for value in TIMES[type]:
        shop.insert(order_id=f'"{value}"', ordered_at=value)
    shown = shop.shown()
    expected = {value: ("1.00", time) for value, time in TIMES[type].items() if time is not None}
    assert shown == dict.fromkeys(shown, expected)


@pytest.mark.parametrize(
    ("type", "value", "order_id"),
    [("INT(10) ZEROFILL", "17", 17), ("BIGINT UNSIGNED ZEROFILL", "18446744073709551615", 2**64 - 1),
     ("TINYINT(1)", "1", 1), ("DECIMAL(20,0)", "17", "17"), ("YEAR", "2026", "2026")],
)  # fmt: skip
def test_all_readers_show_the_same_order_id(
    stack: Stack, connection: Connection, settings: Settings, type: str, value: str, order_id: str | int
):
    shop = Shop(stack, connection, settings, order_id=type).install()
    shop.insert(order_id=value)
    # The pending change is found by its order, too.
    assert [change.event_type for change in order_lookup.find_order(settings, str(order_id))[1]] == ["order.placed"]
    shown = shop.shown()
    expected = {order_id: ("1.00", "2026-01-31T00:00:00Z")}
    assert shown == dict.fromkeys(shown, expected)


def test_a_json_column_is_text(stack: Stack, connection: Connection, settings: Settings):
    shop = Shop(stack, connection, settings, category="JSON").install()
    shop.insert(category="'[1]'")
    rows = shop.captured()
    assert [purchase.category for purchase in shop.purchases(rows)] == ["[1]"]


@pytest.mark.parametrize("type", ["POINT", "GEOMETRYCOLLECTION"])
def test_a_column_that_no_trigger_can_convert_is_refused_before_the_shop_is_touched(
    stack: Stack, connection: Connection, settings: Settings, type: str
):
    shop = Shop(stack, connection, settings, category=type)
    with pytest.raises(BadSource, match="category must be text or a number"):
        shop.install()
    assert triggers.read_shop_triggers(connection, settings) == []
    shop.insert()


# --- what cannot be shown any more -------------------------------------------------------------------------

BREAKING = {
    "negative price": "price = -5",
    "no price": "price = NULL",
    "long payment method": "payment_method = REPEAT('x', 300)",
    "zero date": "ordered_at = 0",
    "no date": "ordered_at = NULL",
}


@pytest.mark.parametrize("change", BREAKING.values(), ids=BREAKING)
def test_a_change_that_breaks_a_rule_takes_the_purchase_back_until_the_row_is_corrected(
    stack: Stack, connection: Connection, settings: Settings, change: str
):
    shop = Shop(stack, connection, settings, payment_method="TEXT").install()
    shop.insert()
    placed = shop.captured()
    shop.execute(f"UPDATE orders SET {change}")
    changed = shop.captured()
    letter, removal = shop.publish(changed)
    assert letter.topic.endswith("orders-dead")
    event = read_event(removal.key, removal.value)
    assert (event.type, event.data.version) == (REMOVED, changed[0].version)
    assert [row.version < changed[0].version for row in placed] == [True]
    # A snapshot takes it back as well: nothing below its version remains.
    taken = shop.publish(shop.snapshot())
    assert [record.event_id is None for record in taken] == [True, False]
    shop.execute("UPDATE orders SET price = 7, payment_method = 'card', ordered_at = '2026-01-31'")
    corrected = shop.captured()
    assert [(row.type, row.version > changed[0].version) for row in corrected] == [(CHANGED, True)]
    assert [purchase.price for purchase in shop.purchases(corrected)] == ["7.00"]
    shop.execute(f"UPDATE orders SET {change}")
    shop.captured()
    shop.execute("DELETE FROM orders")
    (removed,) = shop.publish(shop.captured())
    assert read_event(removed.key, removed.value).type == REMOVED


def test_a_change_to_an_invalid_identity_removes_the_purchase_from_its_place(
    stack: Stack, connection: Connection, settings: Settings
):
    shop = Shop(stack, connection, settings).install()
    shop.insert()
    shop.captured()
    shop.execute("UPDATE orders SET product_name = REPEAT('x', 5000), price = -5")
    removal, letter = shop.publish(shop.captured())
    event = read_event(removal.key, removal.value)
    assert (event.type, event.data.product_name) == (REMOVED, "Phone")
    assert letter.topic.endswith("orders-dead")


def test_the_triggers_of_an_earlier_version_go_on_capturing(
    stack: Stack, connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    shop = Shop(stack, connection, settings, ordered_at="TIMESTAMP(6) NULL")
    with monkeypatch.context() as patch:
        patch.setattr("source.columns._time_expression", earlier_time_expression)
        shop.install()
    assert len(triggers.find_missing(connection, settings)) == 3
    triggers.require_installed(connection, settings)
    shop.insert()
    shop.execute("UPDATE orders SET price = 2")
    before = shop.captured()
    assert [purchase.price for purchase in shop.purchases(before)] == ["1.00", "2.00"]
    shop.install()
    assert triggers.find_missing(connection, settings) == []
    shop.execute("UPDATE orders SET price = 3")
    (after,) = shop.captured()
    assert msgspec.json.decode(after.payload)["ordered_at"] == msgspec.json.decode(before[0].payload)["ordered_at"]


def earlier_time_expression(column: object, value: str) -> str:
    """The time of a TIMESTAMP in the triggers of version 0.1.0."""
    return f"DATE_ADD('1970-01-01', INTERVAL UNIX_TIMESTAMP({value}) * 1000000 MICROSECOND)"


# --- `lately source check` ---------------------------------------------------------------------------------


def row_findings(settings: Settings) -> list[Finding]:
    """What the check says about the sampled rows."""
    return [finding for finding in check_source(settings) if finding.name == "rows"]


def test_the_check_tries_rows_and_names_the_rule_with_an_example(
    stack: Stack, connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("source.row_sample.SAMPLE_ROWS", 100)
    shop = Shop(stack, connection, settings, price="DECIMAL(38,16)").install()
    (empty,) = row_findings(settings)
    assert (empty.result, empty.detail) == ("ok", "0 sampled rows obey all rules")
    values = ", ".join(f"('o{n}', 'Phone', 'secret-user', {n % 10}, '2026-01-31')" for n in range(300))
    shop.execute(f"INSERT INTO orders (order_id, product_name, user_id, price, ordered_at) VALUES {values}")
    (valid,) = row_findings(settings)
    assert (valid.result, valid.detail) == ("ok", "200 sampled rows obey all rules")
    shop.execute("UPDATE orders SET price = -5 WHERE id IN (7, 150, 300)")
    shop.execute("UPDATE orders SET ordered_at = 0 WHERE id = 8")
    price, time = row_findings(settings)
    assert price.result == "warning"
    assert price.detail.startswith("2 of 200 sampled rows cannot be shown: price must be a decimal number >= 0")
    assert price.detail.endswith("for example id=7")
    assert "correct these rows" in price.fix
    assert time.detail.startswith("1 of 200 sampled rows cannot be shown: ordered_at must be")
    assert "secret-user" not in price.detail
    shop.execute("UPDATE orders SET price = NULL")
    assert [finding.result for finding in row_findings(settings)] == ["failed"]
