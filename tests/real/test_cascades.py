"""Changes that foreign keys make are captured where the server runs triggers for cascades, and reported elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import mysql.connector
import pytest

from app.settings import Settings
from local.artifacts import MYSQL, Artifacts
from local.database import start_database
from local.database_server import DatabaseServer
from local.shop import TABLE
from source import install as source_install
from source.cascades import read_cascades
from source.check import check_source
from source.guarantee import assess
from source.mysql import connect
from source.outbox import Outbox

pytestmark = pytest.mark.both_databases

CUSTOMERS = (
    "CREATE TABLE customers (id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY, n INT UNIQUE)"
)
ORDER = "INSERT INTO orders VALUES ('o1', 'tea', 'ann', 1, '2026-01-31', 'card', 'food')"


@pytest.fixture(scope="module")
def server(database_artifacts: Artifacts, tmp_path_factory) -> Iterator[DatabaseServer]:
    """A server of its own, because a test changes a variable of the server."""
    with start_database(database_artifacts, tmp_path_factory.mktemp("cascades")) as server:
        yield server


@pytest.fixture
def settings(server: DatabaseServer) -> Settings:
    """A shop with customers."""
    execute(server, *(f"DROP DATABASE IF EXISTS {name}" for name in ("shop", "shop_lately")))
    execute(server, "CREATE DATABASE shop", "USE shop", CUSTOMERS, TABLE,
            "INSERT INTO customers VALUES ('ann', 1)")  # fmt: skip
    return Settings(mysql_port=server.port)


def execute(server: DatabaseServer, *statements: str) -> None:
    with closing(
        mysql.connector.connect(
            host=server.host, port=server.port, user="root", autocommit=True, charset="utf8mb4",
            collation="utf8mb4_general_ci", use_pure=True, ssl_disabled=True,
        )
    ) as connection, closing(connection.cursor()) as cursor:  # fmt: skip
        for statement in statements:
            cursor.execute(statement)


def install(settings: Settings) -> None:
    with closing(connect(settings)) as connection:
        source_install.install(connection, settings)


def captured(settings: Settings) -> list[str]:
    with closing(connect(settings)) as connection:
        return [row.type for row in Outbox(connection, settings).read_rows()]


def unseen(settings: Settings) -> tuple[str, ...]:
    with closing(connect(settings)) as connection:
        return assess(connection, settings).unseen


@pytest.mark.parametrize(
    "rule",
    ["user_id) REFERENCES customers (id) ON DELETE CASCADE", "user_id) REFERENCES customers (id) ON UPDATE CASCADE"],
)
def test_a_cascade_that_runs_no_triggers_is_unseen_and_check_says_what_to_do(server, settings, rule, database_product):
    execute(server, f"ALTER TABLE shop.orders ADD CONSTRAINT of_customer FOREIGN KEY ({rule}")
    install(settings)
    execute(server, "USE shop", ORDER)
    execute(server, "USE shop", "DELETE FROM customers" if "DELETE" in rule else "UPDATE customers SET id = 'bob'")
    assert captured(settings) == ["order.placed"]
    assert unseen(settings) == ("cascade",)
    (finding,) = [one for one in check_source(settings) if one.name == "cascades"]
    assert finding.result == "warning"
    assert finding.detail.startswith("of_customer change")
    assert ("SET PERSIST enable_cascade_triggers = ON" in finding.fix) == (database_product == MYSQL)


def test_a_cascade_that_runs_triggers_is_captured_exactly_once(server, settings, database_product):
    execute(server, "ALTER TABLE shop.orders ADD CONSTRAINT of_customer FOREIGN KEY (user_id) REFERENCES customers (id)"
            " ON DELETE CASCADE ON UPDATE CASCADE")  # fmt: skip
    install(settings)
    if database_product != MYSQL:
        with closing(connect(settings)) as connection:
            cascades = read_cascades(connection, settings)
        assert (cascades.run_triggers, cascades.can_run_triggers) == (False, False)
        return
    try:
        execute(server, "SET GLOBAL enable_cascade_triggers = ON")
        execute(server, "USE shop", ORDER, "UPDATE customers SET id = 'bob'", "DELETE FROM customers")
        assert captured(settings) == ["order.placed", "order.removed", "order.placed", "order.removed"]
        assert unseen(settings) == ()
        (finding,) = [one for one in check_source(settings) if one.name == "cascades"]
        assert (finding.result, finding.fix) == ("ok", "")
    finally:
        execute(server, "SET GLOBAL enable_cascade_triggers = OFF")


@pytest.mark.parametrize(
    "change",
    [
        "FOREIGN KEY (user_id) REFERENCES customers (id)",
        "FOREIGN KEY (user_id) REFERENCES customers (id) ON DELETE RESTRICT ON UPDATE NO ACTION",
        "COLUMN n INT, ADD FOREIGN KEY (n) REFERENCES customers (n) ON DELETE SET NULL ON UPDATE CASCADE",
    ],
)
def test_foreign_keys_that_change_nothing_that_is_captured_are_not_reported(server, settings, change):
    execute(server, f"ALTER TABLE shop.orders ADD {change}")
    install(settings)
    assert unseen(settings) == ()
    assert "cascades" not in {one.name for one in check_source(settings)}


def test_a_foreign_key_of_another_table_is_not_reported(server, settings):
    execute(
        server, "USE shop", "CREATE TABLE lines_of (n INT, FOREIGN KEY (n) REFERENCES customers (n) ON DELETE CASCADE)"
    )
    install(settings)
    assert unseen(settings) == ()
