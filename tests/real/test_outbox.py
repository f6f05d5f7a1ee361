"""The triggers copy every change of the shop's table into the outbox, and never stand in the shop's way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime

import pytest

from app.errors import BadSource
from app.settings import Settings
from app.topics import Topics
from domain.errors import UnreadableEvent
from domain.events import read_document
from source import events, snapshot, triggers, versions
from source.check import check_source
from source.mysql import connect, read_server_time
from source.outbox import Outbox
from source.outbox_row import OutboxRow
from source.outbox_table import locate_outbox, read_first_version
from source.print_sql import setup_statements
from source.setup import setup
from source.status import read_status
from source.teardown import teardown
from tests.kit.stack import Stack

pytestmark = pytest.mark.both_databases

AT = datetime(2026, 1, 31, 12, 0, 0, 500_000)


@pytest.fixture
def connection(settings: Settings, stack: Stack) -> Iterator:
    with closing(connect(settings)) as one:
        yield one


def quiet(_: str) -> None:
    """Where the commands say what they did."""


def allow_triggers(stack: Stack, database_product: str, user: str) -> None:
    """With a binary log, which MySQL has by default, any trigger needs this privilege, too."""
    if database_product == "mysql":
        stack.execute(f"GRANT SUPER ON *.* TO '{user}'@'%'")


def waiting(connection, settings: Settings) -> list[OutboxRow]:
    """What is in the outbox."""
    return Outbox(connection, settings).read_rows()


def snapshots(stack: Stack) -> list[tuple]:
    """What snapshots have published: (order, price, version), in the order of their keys."""
    events = [json.loads(record.value()) for record in stack.records("orders")]
    return sorted(
        (event["data"]["order_id"], event["data"]["price"], event["data"]["version"])
        for event in events
        if event["type"] == "order.snapshot"
    )


def changes(connection, settings: Settings) -> list[tuple]:
    """What is in the outbox: (type, user, order, product, price)."""
    found = []
    for row in waiting(connection, settings):
        data = json.loads(row.payload)
        found.append((row.type, data["user_id"], data["order_id"], data["product_name"], data["price"]))
    return found


def test_inserts_updates_and_deletes_come_in_the_order_in_which_they_were_done(shop, connection, settings):
    shop.insert(("o1", "Phone", "ann", "19.90", AT, "card"))
    shop.execute("UPDATE orders SET price = 17.5")
    shop.execute("DELETE FROM orders")
    assert changes(connection, settings) == [
        ("order.placed", "ann", "o1", "Phone", "19.90"),
        ("order.changed", "ann", "o1", "Phone", "17.50"),
        ("order.removed", "ann", "o1", "Phone", "17.50"),
    ]


def test_an_update_of_other_columns_is_no_event(shop, connection, settings):
    shop.execute("ALTER TABLE orders ADD COLUMN shipped TINYINT NOT NULL DEFAULT 0")
    shop.insert(("o1", "Phone", "ann", "19.90", AT, "card"))
    shop.execute("UPDATE orders SET shipped = 1")
    shop.execute("UPDATE orders SET price = price")
    assert [kind for kind, *_ in changes(connection, settings)] == ["order.placed"]


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ("user_id = 'bob'", ("bob", "o1", "Phone")),
        ("user_id = 'Ann'", ("Ann", "o1", "Phone")),
        ("order_id = 'o2'", ("ann", "o2", "Phone")),
        ("product_name = 'phone'", ("ann", "o1", "phone")),
    ],
)
def test_a_purchase_that_moves_is_removed_there_and_placed_here(shop, connection, settings, change, moved):
    # A collation to which "ann" and "Ann" are equal.
    for column in ("user_id", "order_id", "product_name"):
        shop.execute(f"ALTER TABLE orders MODIFY {column} VARCHAR(64) COLLATE utf8mb4_general_ci NOT NULL")
    shop.insert(("o1", "Phone", "ann", "19.90", AT, "card"))
    shop.execute(f"UPDATE orders SET {change}")
    assert [change[:-1] for change in changes(connection, settings)[1:]] == [
        ("order.removed", "ann", "o1", "Phone"),
        ("order.placed", *moved),
    ]


def test_an_update_that_the_server_ignored_is_no_event(shop, connection, settings):
    shop.insert(("o1", "Phone", "ann", "1.00", AT, "card"), ("o2", "Phone", "ann", "1.00", AT, "card"))
    before = changes(connection, settings)
    shop.execute("UPDATE IGNORE orders SET order_id = 'o2', price = 9 WHERE order_id = 'o1'")
    shop.execute("UPDATE IGNORE orders SET order_id = 'o2' WHERE order_id = 'o1'")
    assert shop.select("SELECT order_id, price FROM orders WHERE order_id = 'o1'")
    assert changes(connection, settings) == before
    shop.execute("UPDATE IGNORE orders SET order_id = 'o3' WHERE order_id = 'o1'")
    assert changes(connection, settings)[len(before) :] == [
        ("order.removed", "ann", "o1", "Phone", "1.00"),
        ("order.placed", "ann", "o3", "Phone", "1.00"),
    ]


def test_what_was_rolled_back_leaves_nothing(shop, connection, settings):
    with closing(shop.connect()) as transaction, closing(transaction.cursor()) as cursor:
        cursor.execute("INSERT INTO orders VALUES ('o1', 'Phone', 'ann', 1, NOW(), 'card', NULL)")
        transaction.rollback()
    assert changes(connection, settings) == []


def test_a_transaction_that_commits_late_is_still_published(shop, connection, settings):
    with closing(shop.connect()) as slow, closing(slow.cursor()) as cursor:
        cursor.execute("INSERT INTO orders VALUES ('slow', 'Phone', 'ann', 1, NOW(), 'card', NULL)")
        shop.insert(("fast", "Phone", "ann", "1", AT, "card"))
        first = waiting(connection, settings)
        Outbox(connection, settings).mark_published(first)
        slow.commit()
    assert [change[2] for change in changes(connection, settings)] == ["slow"]


def test_the_first_setup_takes_a_snapshot_of_the_last_day_and_the_next_one_changes_nothing(stack, connection, settings):
    stack.create_orders()
    stack.execute(
        "INSERT INTO orders VALUES ('new', 'Phone', 'ann', 1, UTC_TIMESTAMP() - INTERVAL 23 HOUR, 'card', NULL)"
    )
    stack.execute(
        "INSERT INTO orders VALUES ('old', 'Phone', 'ann', 1, UTC_TIMESTAMP() - INTERVAL 25 HOUR, 'card', NULL)"
    )
    for _ in range(2):
        setup(settings, "1d", quiet)
    assert [order for order, *_ in snapshots(stack)] == ["new"]
    asyncio.run(snapshot.run(settings))
    assert [order for order, *_ in snapshots(stack)] == ["new", "new", "old"]


def test_a_snapshot_is_older_than_every_change_and_newer_than_every_outbox_before(shop, connection, settings):
    shop.insert(("o1", "Phone", "ann", "1", AT, "card"))
    asyncio.run(snapshot.run(settings))
    shop.execute("UPDATE orders SET price = 2")
    before, changed = waiting(connection, settings)
    ((*_, taken),) = snapshots(shop)
    assert taken < before.version < changed.version
    shop.execute(f"DROP TABLE {shop.outbox()}, {shop.outbox('_state')}")
    setup(settings, None, quiet)
    assert snapshots(shop)[-1][-1] > changed.version


def test_an_outbox_of_an_earlier_version_in_the_shops_database_is_used_without_a_setting(stack, connection, settings):
    stack.create_orders()
    setup(Settings.from_env({**stack.env, "LATELY_SOURCE_OUTBOX": "purchase_outbox"}), "1d", quiet)
    assert stack.select("SHOW TRIGGERS LIKE 'orders'")[0][3].count("INSERT INTO `purchase_outbox` ") == 1
    creation = stack.select("SHOW CREATE TABLE purchase_outbox")
    lines: list[str] = []
    setup(settings, "1d", lines.append)
    assert lines[-1].endswith("was set up before")
    assert stack.select("SHOW CREATE TABLE purchase_outbox") == creation
    assert (
        stack.select("SELECT 1 FROM information_schema.tables WHERE table_schema = %s", (f"{stack.name}_lately",)) == []
    )
    stack.insert(("o1", "Phone", "ann", "19.90", AT, "card"))
    assert changes(connection, locate_outbox(connection, settings)) == [("order.placed", "ann", "o1", "Phone", "19.90")]
    assert read_status(settings)["outbox"] == "purchase_outbox"
    assert [finding.detail for finding in check_source(settings) if finding.name == "outbox"] == ["purchase_outbox"]
    teardown(settings, force=True, report=quiet)
    assert stack.select("SHOW TABLES") == [("orders",)]


def test_a_new_outbox_is_in_a_schema_of_its_own(shop, settings):
    assert shop.select("SHOW TABLES") == [("orders",)]
    assert read_status(settings)["outbox"] == f"{shop.name}_lately.purchase_outbox"
    shop.insert(("o1", "Phone", "ann", "19.90", AT, "card"))
    assert shop.select(f"SELECT type FROM `{shop.name}_lately`.purchase_outbox") == [("order.placed",)]


def test_without_the_right_to_create_the_schema_setup_names_the_privileges_and_the_other_place(
    stack, settings, database_product
):
    stack.create_orders()
    user = f"u{stack.name[1:]}"
    stack.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'")
    try:
        stack.execute(f"GRANT ALL ON `{stack.name}`.* TO '{user}'@'%'")
        stack.execute(f"GRANT SUPER ON *.* TO '{user}'@'%'")  # MySQL with a binlog lets nobody else create triggers
        allow_triggers(stack, database_product, user)
        weak = Settings.from_env({**stack.env, "LATELY_MYSQL_USER": user, "LATELY_MYSQL_PASSWORD": "secret"})
        with pytest.raises(BadSource, match=rf"GRANT .*CREATE, .* ON `{stack.name}\\_lately`.*LATELY_SOURCE_OUTBOX="):
            setup(weak, "1d", quiet)
        setup(replace(weak, source_outbox="purchase_outbox"), "1d", quiet)
        assert read_status(weak)["outbox"] == "purchase_outbox"
    finally:
        stack.execute(f"DROP USER '{user}'@'%'")


def test_a_changed_column_mapping_replaces_the_triggers(shop, connection, settings, stack):
    stack.execute("ALTER TABLE orders ADD COLUMN paid_by VARCHAR(20) NULL")
    renamed = Settings.from_env({**stack.env, "LATELY_SOURCE_COLUMNS": "payment_method=paid_by"})
    setup(renamed, "1d", quiet)
    stack.execute("INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, paid_by)"
                  " VALUES ('o1', 'Phone', 'ann', 1, NOW(), 'coins')")  # fmt: skip
    assert json.loads(waiting(connection, settings)[0].payload)["payment_method"] == "coins"


def test_the_shops_own_types_and_names_are_understood(stack, connection):
    stack.execute(
        "CREATE TABLE sales (nr BIGINT UNSIGNED, item VARCHAR(80) CHARACTER SET latin1, customer INT,"
        " amount DECIMAL(20,4), at TIMESTAMP(3) NULL, PRIMARY KEY (nr, item)) ENGINE=InnoDB"
    )
    mapping = "order_id=nr,product_name=item,user_id=customer,price=amount,ordered_at=at"
    settings = Settings.from_env({**stack.env, "LATELY_SOURCE_TABLE": "sales", "LATELY_SOURCE_COLUMNS": mapping})
    setup(settings, "1d", quiet)
    with closing(stack.connect()) as other, closing(other.cursor()) as cursor:
        # A shop that lives in another time zone writes its local time.
        cursor.execute("SET time_zone = '+05:30'")
        cursor.execute("INSERT INTO sales VALUES (18446744073709551615, 'Käse', 7, 1.5, '2026-01-31 05:30:00.250')")
        other.commit()
    (row,) = waiting(connection, settings)
    record = events.build_record(row, "/mysql/s/db/sales", Topics(settings), settings)
    assert record.topic == Topics(settings).orders.name
    assert record.key == b"7"
    assert json.loads(record.value)["data"] == {
        "user_id": "7",
        "order_id": 18446744073709551615,
        "product_name": "Käse",
        "price": "1.5000",
        "ordered_at": "2026-01-31T00:00:00.250000Z",
        "version": row.version,
    }


POISON = {
    "no user": ("NULL", "'o1'", "'Phone'", "1", "NOW()"),
    "negative price": ("'ann'", "'o1'", "'Phone'", "-1", "NOW()"),
    "huge price": ("'ann'", "'o1'", "'Phone'", "1e30", "NOW()"),
    "very long name": ("'ann'", "'o1'", "REPEAT('x', 5000)", "1", "NOW()"),
    "very long order id": ("'ann'", "REPEAT('x', 3000)", "'Phone'", "1", "NOW()"),
    "zero date": ("'ann'", "'o1'", "'Phone'", "1", "'0000-00-00'"),
    "no date": ("'ann'", "'o1'", "'Phone'", "1", "NULL"),
}


@pytest.mark.parametrize("name", POISON)
def test_a_row_that_breaks_a_rule_does_not_stop_the_shop_and_becomes_a_dead_letter(stack, connection, settings, name):
    stack.execute(
        "CREATE TABLE orders (user_id VARCHAR(20), order_id TEXT, product_name TEXT, price DOUBLE,"
        " ordered_at DATETIME, payment_method TEXT)"
    )
    setup(settings, "1d", quiet)
    with closing(stack.connect()) as shop, closing(shop.cursor()) as cursor:
        cursor.execute("SET sql_mode = ''")
        user, order, product, price, at = POISON[name]
        cursor.execute(f"INSERT INTO orders VALUES ({user}, {order}, {product}, {price}, {at}, 'card')")
        shop.commit()
    (row,) = waiting(connection, settings)
    record = events.build_record(row, "/mysql/s/db/orders", Topics(settings), settings)
    assert record.topic == Topics(settings).orders_dead.name
    with pytest.raises(UnreadableEvent):
        read_document(record.value)


def test_the_printed_sql_can_be_executed_as_it_is(stack, connection, settings):
    stack.create_orders()
    before, after = setup_statements(settings).removesuffix("DELIMITER ;").split("DELIMITER //")
    with closing(connection.cursor()) as cursor:
        for statement in [*before.split(";"), *after.split("//")]:
            if statement.strip():
                cursor.execute(statement)
    assert triggers.is_installed(connection, settings)
    creation = stack.select(f"SHOW CREATE TABLE {stack.outbox()}")
    setup(settings, "1d", quiet)
    assert stack.select(f"SHOW CREATE TABLE {stack.outbox()}") == creation, "setup found nothing to do"
    stack.insert(("o1", "Phone", "ann", "19.90", AT, "card"))
    assert changes(connection, settings) == [("order.placed", "ann", "o1", "Phone", "19.90")]


def test_triggers_that_were_gone_for_a_while_are_followed_by_a_newer_snapshot(shop, connection, settings):
    shop.insert(("o1", "Phone", "ann", "1", AT, "card"))
    seen = waiting(connection, settings)[-1].version
    shop.execute(f"DROP TRIGGER {shop.trigger('update')}")
    shop.execute("UPDATE orders SET price = 2")
    setup(settings, None, quiet)
    ((_, price, version),) = snapshots(shop)
    assert price == "2.00"
    assert version > seen


def test_ids_that_are_assigned_again_are_noticed_and_repeats_and_late_commits_are_not(shop, connection, settings):
    outbox = Outbox(connection, settings)
    with closing(shop.connect()) as slow, closing(slow.cursor()) as cursor:
        cursor.execute("INSERT INTO orders VALUES ('slow', 'Phone', 'ann', 1, NOW(), 'card', NULL)")
        shop.insert(("o1", "Phone", "ann", "1", AT, "card"))
        (row,) = outbox.read_rows()
        assigned_before = row.id, read_server_time(connection)
        assert not outbox.has_reused_ids(row.id, assigned_before), "published, and not deleted yet"
        slow.commit()
    assert next(late.id for late in outbox.read_rows()) < row.id
    assert not outbox.has_reused_ids(row.id, assigned_before), "its transaction committed late"
    long_ago = row.id, assigned_before[1] - 60_000_000
    assert outbox.has_reused_ids(row.id, long_ago)
    assert versions.read_next_id(connection, settings) == row.id + 1

    shop.execute(f"TRUNCATE TABLE {shop.outbox()}")
    assert versions.read_next_id(connection, settings) == 1
    shop.insert(("o2", "Phone", "ann", "1", AT, "card"))
    outbox.read_rows()
    assert outbox.has_reused_ids(0, None)


def test_versions_that_begin_anew_are_above_all_others_and_keep_the_order_of_the_rows(shop, connection, settings):
    shop.execute(f"TRUNCATE TABLE {shop.outbox()}")
    shop.insert(("o1", "Phone", "ann", "1", AT, "card"))
    for price in (2, 3):
        shop.execute(f"UPDATE orders SET price = {price}")
    before = [row.event_id for row in waiting(connection, settings)]
    highest = 10**16
    first = versions.restart_versions_above(settings, highest)
    rows = waiting(connection, settings)
    assert [row.event_id for row in rows] == before
    assert highest < rows[0].version < rows[1].version < rows[2].version < first - 1
    assert read_first_version(connection, settings) == first
    shop.execute("UPDATE orders SET price = 4")
    assert waiting(connection, settings)[-1].version == first
    assert versions.restart_versions_above(settings, highest) > first, "a repetition after a crash"
    assert [row.event_id for row in waiting(connection, settings)][:3] == before


def test_an_open_transaction_of_the_shop_does_not_hold_up_the_publishing_of_others(shop, connection, settings):
    with closing(shop.connect()) as slow, closing(slow.cursor()) as cursor:
        cursor.execute("INSERT INTO orders VALUES ('slow', 'Phone', 'ann', 1, NOW(), 'card', NULL)")
        shop.insert(*[(f"o{number}", "Phone", "ann", "1", AT, "card") for number in range(400)])
        with closing(connection.cursor()) as ours:
            ours.execute("SET SESSION innodb_lock_wait_timeout = 1")
        Outbox(connection, settings).mark_published(waiting(connection, settings))
        assert waiting(connection, settings) == []
        slow.rollback()


def test_a_snapshot_does_not_make_an_open_transaction_or_the_shop_wait(shop, connection, settings):
    shop.insert(*[(f"o{number}", "Phone", "ann", "1", AT, "card") for number in range(1_200)])
    with closing(shop.connect()) as slow, closing(slow.cursor()) as cursor:
        cursor.execute("INSERT INTO orders VALUES ('slow', 'Phone', 'ann', 1, NOW(), 'card', NULL)")
        asyncio.run(snapshot.run(settings))
        shop.insert(("fast", "Phone", "ann", "1", AT, "card"))
        slow.commit()
    assert len(snapshots(shop)) == 1_200
    assert shop.count_outbox() == 1_202


@pytest.mark.parametrize("missing", ["INSERT", "ALTER", "TRIGGER", "LOCK TABLES", "SELECT"])
def test_a_user_without_a_right_is_told_so_before_the_shop_is_touched(stack, settings, missing, database_product):
    stack.create_orders()
    rights = {"CREATE", "ALTER", "TRIGGER", "LOCK TABLES", "SELECT", "INSERT", "UPDATE", "DELETE"}
    user = f"u{stack.name[1:]}"
    stack.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'")
    try:
        for schema in (stack.name, f"{stack.name}_lately"):
            stack.execute(f"GRANT {', '.join(rights - {missing})} ON `{schema}`.* TO '{user}'@'%'")
        allow_triggers(stack, database_product, user)
        weak = Settings.from_env({**stack.env, "LATELY_MYSQL_USER": user, "LATELY_MYSQL_PASSWORD": "secret"})
        if missing == "LOCK TABLES":
            setup(weak, "1d", quiet)  # it is needed only to replace triggers
        else:
            with pytest.raises(BadSource):
                setup(weak, "1d", quiet)
        stack.insert(("o1", "Phone", "ann", "1", AT, "card"))
    finally:
        stack.execute(f"DROP USER '{user}'@'%'")


@pytest.mark.parametrize(
    ("make", "env", "message"),
    [
        ("SELECT 1", {}, "there is no table .*orders: create it"),
        ("CREATE TABLE orders (user_id INT)", {}, "has no column order_id: name the one that holds order_id"),
        (
            "CREATE TABLE orders (user_id INT, order_id INT, product_name TEXT, price DECIMAL(9,2), ordered_at TEXT)",
            {},
            "ordered_at must be a DATETIME or TIMESTAMP",
        ),
        (
            "CREATE TABLE orders (user_id BINARY(16), order_id INT, product_name TEXT, price DECIMAL(9,2),"
            " ordered_at DATETIME)",
            {},
            "user_id must be text or a number: add a generated column",
        ),
        ("SELECT 1", {"LATELY_MYSQL_DATABASE": "nowhere"}, "Unknown database 'nowhere'"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_with_the_next_step(stack, make, env, message):
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(make)
        cursor.fetchall()
    with pytest.raises(BadSource, match=message):
        setup(Settings.from_env({**stack.env, **env}), "1d", quiet)
