"""Setup and teardown with the privileges that are found in practice: the shop's own statements always work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import mysql.connector
import pytest

from app.errors import BadSource, DatabaseAway
from app.settings import Settings
from source import server_rules, triggers
from source.check import check_source
from source.findings import Finding
from source.install import install, read_own_tables
from source.installed_triggers import InstalledTrigger, read_triggers
from source.mysql import connect
from source.outbox_table import locate_outbox
from source.print_sql import setup_statements
from source.teardown import teardown
from tests.kit.stack import Servers, Stack

AT = datetime(2026, 1, 31, 12, 0, 0, 500_000)
NUMBERS = itertools.count()

# They change global variables of a server that no other test uses.
pytestmark = [pytest.mark.both_databases, pytest.mark.group("privileges")]


@dataclass
class Shop:
    """A shop that writes all the time, and a user of Lately with few privileges."""

    stack: Stack
    user: str
    is_mysql: bool

    def __post_init__(self) -> None:
        self.outbox = f"{self.stack.name}_lately"

    def root(self, *statements: str) -> None:
        """Execute statements as the administrator."""
        for statement in statements:
            self.stack.execute(statement)

    def grant(self, *grants: str) -> None:
        """Give the user of Lately privileges: `SELECT ON {shop}.orders`."""
        for grant in grants:
            self.root(f"GRANT {self.named(grant)} TO '{self.user}'@'%'")

    def named(self, text: str) -> str:
        return text.format(shop=f"`{self.stack.name}`", outbox=f"`{self.outbox}`", name=self.stack.name)

    def grant_least(self, *without: str) -> None:
        """Give the user the least privileges, without some of them."""
        for scope, privileges in (
            ("{shop}.orders", ("SELECT", "TRIGGER")),
            ("{shop}.*", ("LOCK TABLES",)),
            ("{outbox}.*", ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "LOCK TABLES", "DROP",
                            "TRIGGER")),
        ):  # fmt: skip
            granted = [name for name in privileges if f"{name} ON {scope}" not in without]
            if granted:
                self.grant(f"{', '.join(granted)} ON {scope}")

        self.grant_role()

    def grant_role(self) -> None:
        """Let the user read that the server is no replica; in MariaDB every user may know it."""
        if self.is_mysql:
            self.grant("REPLICATION CLIENT ON *.*")

    def settings(self, **env: str) -> Settings:
        login = {"LATELY_MYSQL_USER": self.user, "LATELY_MYSQL_PASSWORD": "secret"}
        return Settings.from_env({**self.stack.env, **login, **env})

    def root_settings(self, **env: str) -> Settings:
        return Settings.from_env({**self.stack.env, **env})

    def setup(self, settings: Settings | None = None) -> list[str]:
        """Set up, but take no snapshot; return what was reported."""
        settings, lines = settings or self.settings(), []
        with closing(connect(settings)) as connection:
            install(connection, locate_outbox(connection, settings), lines.append)
        return lines

    def refusal(self, settings: Settings | None = None) -> str:
        """The message with which a setup is refused; the shop writes before and after it."""
        self.write()
        with pytest.raises(BadSource) as caught:
            self.setup(settings)
        self.write()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def check(self, settings: Settings | None = None) -> list[Finding]:
        return [finding for finding in check_source(settings or self.settings()) if finding.result != "ok"]

    def teardown(self, settings: Settings | None = None) -> list[str]:
        lines: list[str] = []
        teardown(settings or self.settings(), force=True, report=lines.append)
        return lines

    def write(self) -> None:
        """Insert, change and remove a row as the shop does."""
        order = f"o{next(NUMBERS)}"
        self.stack.insert((order, "Phone", "ann", "1", AT, "card"))
        self.root(
            f"UPDATE orders SET price = 2 WHERE order_id = '{order}'", f"DELETE FROM orders WHERE order_id = '{order}'"
        )

    def captured(self) -> int:
        """The number of rows that one insert, change and removal add to the outbox."""
        count = f"SELECT COUNT(*) FROM `{self.outbox}`.purchase_outbox"
        before = self.stack.select(count)[0][0]
        self.write()
        return self.stack.select(count)[0][0] - before

    def triggers(self) -> list[InstalledTrigger]:
        settings = self.root_settings(LATELY_SOURCE_OUTBOX=f"{self.outbox}.purchase_outbox")
        with closing(connect(settings)) as connection:
            return read_triggers(connection, settings, everywhere=True)

    def tables(self) -> set[str]:
        """The tables of Lately."""
        settings = self.root_settings(LATELY_SOURCE_OUTBOX=f"{self.outbox}.purchase_outbox")
        with closing(connect(settings)) as connection:
            return read_own_tables(connection, settings)


@pytest.fixture
def shop(privileges_servers: Servers, tmp_path: Path) -> Iterator[Shop]:
    """A shop with orders and a user without privileges, on a server of these tests only."""
    with Stack(privileges_servers, tmp_path) as stack:
        stack.create_orders()
        user = f"u{stack.name[1:]}"
        stack.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'")
        is_mysql = "mariadb" not in stack.select("SELECT VERSION()")[0][0].lower()
        stack.execute("SET GLOBAL log_bin_trust_function_creators = 1")
        yield Shop(stack, user, is_mysql)
        with suppress(mysql.connector.Error):
            stack.execute(f"DROP USER '{user}'@'%'")


@pytest.fixture
def server_variable(shop: Shop) -> Iterator:
    """Sets global variables, and sets them back after the test."""
    before: dict[str, object] = {}

    def change(name: str, value: object) -> None:
        before.setdefault(name, shop.stack.select(f"SELECT @@global.{name}")[0][0])
        shop.stack.execute(f"SET GLOBAL {name} = %s", (value,))

    yield change
    with closing(shop.stack.connect()) as connection, closing(connection.cursor()) as cursor:
        for name, value in before.items():
            cursor.execute(f"SET GLOBAL {name} = %s", (value,))


# -- least privileges


def test_the_least_privileges_are_sufficient_for_setup_check_and_teardown(shop):
    shop.grant_least()
    shop.write()
    shop.setup()
    assert shop.captured() == 3
    assert shop.check() == []
    assert shop.setup() == []
    shop.teardown()
    shop.write()
    assert shop.triggers() == []
    assert shop.tables() == set()


LEAST = [
    "SELECT ON {shop}.orders", "TRIGGER ON {shop}.orders", "SELECT ON {outbox}.*", "INSERT ON {outbox}.*",
    "CREATE ON {outbox}.*", "ALTER ON {outbox}.*",
]  # fmt: skip


@pytest.mark.parametrize("missing", LEAST)
def test_each_missing_privilege_is_named_and_nothing_is_left_behind(shop, missing):
    shop.grant_least(missing)
    privilege = missing.partition(" ")[0]
    refusal = shop.refusal()
    assert privilege in refusal
    assert shop.tables() == set()
    if missing != "SELECT ON {shop}.orders":  # without it nobody knows the columns
        failed = [finding for finding in shop.check() if finding.name.startswith("privilege ")]
        assert [finding.name.split()[1] for finding in failed] == [privilege]
        shop.root(failed[0].fix)
    else:
        shop.grant(missing)
    shop.setup()
    assert shop.captured() == 3
    assert shop.check() == []


@pytest.mark.parametrize("scope", ["{shop}.*", "*.*", "`{name}%`.*"])
def test_all_privileges_cause_no_false_alarm(shop, scope):
    shop.grant(f"ALL PRIVILEGES ON {scope}")
    if scope == "{shop}.*":
        shop.grant("ALL PRIVILEGES ON {outbox}.*")
    shop.grant_role()
    shop.setup()
    assert shop.captured() == 3
    assert shop.check() == []


def test_column_privileges_are_sufficient_to_read_the_shop(shop):
    shop.grant_least("SELECT ON {shop}.orders")
    shop.grant("SELECT (order_id, product_name, user_id, price, ordered_at, payment_method, category) ON {shop}.orders")
    shop.setup()
    assert shop.captured() == 3
    assert [finding for finding in shop.check() if finding.result == "failed"] == []


# -- roles, patterns, partial revokes


def test_privileges_by_a_role_work_in_mysql_and_are_refused_in_mariadb(shop):
    role = f"r{shop.stack.name[1:]}"
    shop.root(f"CREATE ROLE {role}")
    for scope in ("{shop}.*", "{outbox}.*"):
        shop.root(shop.named(f"GRANT ALL PRIVILEGES ON {scope} TO {role}"))
    shop.root(f"GRANT {role} TO '{shop.user}'@'%'")
    shop.grant_role()
    shop.root(f"SET DEFAULT ROLE {role} {'TO' if shop.is_mysql else 'FOR'} '{shop.user}'@'%'")
    if shop.is_mysql:
        shop.setup()
        assert shop.captured() == 3
        assert shop.check() == []
    else:
        assert f"its roles {role} do not count" in shop.refusal()
        (definer,) = [finding for finding in shop.check() if finding.name.startswith("definer")]
        assert definer.result == "failed"
        assert "SELECT, TRIGGER, INSERT" in definer.detail
        for statement in definer.fix.split("; "):
            shop.root(statement)
        shop.setup()
        assert shop.captured() == 3
        assert shop.check() == []
    shop.root(f"DROP ROLE {role}")


def test_of_several_patterns_the_server_uses_one_and_check_names_the_same_privileges(shop):
    shop.grant("ALL PRIVILEGES ON `{name}%`.*", "SELECT ON `{name}`.*")
    shop.grant_role()
    shop.refusal()
    names = {finding.name.removesuffix(f" on {shop.stack.name}.orders") for finding in shop.check()}
    assert "privilege TRIGGER" in names
    assert not any(finding.name.endswith(f"on {shop.outbox}") for finding in shop.check())
    shop.grant("TRIGGER, LOCK TABLES ON `{name}`.*")
    shop.setup()
    assert shop.captured() == 3
    assert shop.check() == []


@pytest.mark.mysql_only("MariaDB has no partial revokes")
def test_partial_revokes_are_seen(shop, server_variable):
    server_variable("partial_revokes", 1)
    shop.grant("ALL PRIVILEGES ON *.*")
    shop.root(shop.named("REVOKE INSERT ON {outbox}.* FROM ") + f"'{shop.user}'@'%'")
    assert "INSERT" in shop.refusal()
    names = {finding.name for finding in shop.check()}
    assert {"outbox", f"privilege INSERT on {shop.outbox}", f"definer {shop.user}@%"} == names
    shop.grant("INSERT ON {outbox}.*")
    shop.setup()
    assert shop.captured() == 3
    assert shop.check() == []
    shop.root(f"DROP USER '{shop.user}'@'%'")


# -- the binary log


def test_without_super_and_trust_nothing_is_changed(shop, server_variable):
    shop.grant_least()
    server_variable("log_bin_trust_function_creators", 0)
    assert "log_bin_trust_function_creators = 1" in shop.refusal()
    assert ["triggers with binlog (1419)"] == [one.name for one in shop.check() if "1419" in one.name]
    assert shop.tables() == set()


def test_triggers_that_cannot_be_renewed_stay(shop, server_variable):
    shop.grant_least()
    shop.setup()
    shop.root("ALTER TABLE orders ADD COLUMN paid_by VARCHAR(20) NULL")
    before = shop.triggers()
    server_variable("log_bin_trust_function_creators", 0)
    renamed = shop.settings(LATELY_SOURCE_COLUMNS="payment_method=paid_by")
    assert "log_bin_trust_function_creators = 1" in shop.refusal(renamed)
    assert shop.triggers() == before
    assert shop.captured() == 3
    assert "purchase_outbox_probe" not in shop.tables()


def test_a_trigger_that_cannot_be_created_leaves_the_old_ones(shop, monkeypatch):
    shop.grant_least()
    shop.setup()
    shop.root("ALTER TABLE orders ADD COLUMN paid_by VARCHAR(20) NULL")
    before = shop.triggers()
    statement = triggers.trigger_statement
    monkeypatch.setattr(
        triggers, "trigger_statement",
        lambda settings, name, event, body: statement(settings, name, event, "nonsense" if event == "insert" else body),
    )  # fmt: skip
    renamed = shop.settings(LATELY_SOURCE_COLUMNS="payment_method=paid_by")
    assert "the outbox could not be set up" in shop.refusal(renamed)
    assert shop.triggers() == before
    assert shop.captured() == 3
    monkeypatch.undo()
    assert any("it is replaced" in line for line in shop.setup(renamed))
    assert shop.captured() == 3
    assert len(shop.triggers()) == 3


def test_statements_in_the_binary_log_are_refused(shop, server_variable):
    shop.grant_least()
    server_variable("binlog_format", "STATEMENT")
    assert "binlog_format = ROW" in shop.refusal()
    assert "binlog format" in [finding.name for finding in shop.check() if finding.result == "failed"]
    assert shop.tables() == set()
    with closing(connect(shop.settings())) as connection:
        with pytest.raises(DatabaseAway, match="SET GLOBAL binlog_format = ROW"):
            server_rules.require_row_format(connection)
        server_variable("binlog_format", "ROW")
        server_rules.require_row_format(connection)


# -- definers


def test_a_definer_that_was_dropped_is_found_and_replaced(shop):
    shop.setup(shop.root_settings())
    shop.root(f"DROP USER IF EXISTS gone_{shop.user}@localhost", f"CREATE USER gone_{shop.user}@localhost")
    shop.root(shop.named(f"GRANT ALL PRIVILEGES ON {{shop}}.* TO gone_{shop.user}@localhost"))
    shop.root(shop.named(f"GRANT ALL PRIVILEGES ON {{outbox}}.* TO gone_{shop.user}@localhost"))
    definer = f"gone_{shop.user}@localhost"
    shop.setup(shop.root_settings(LATELY_SOURCE_DEFINER=definer))
    assert {trigger.definer for trigger in shop.triggers()} == {definer}
    shop.write()
    shop.root(f"DROP USER {definer}")
    with pytest.raises(mysql.connector.Error, match="does not exist"):
        shop.write()
    (finding,) = shop.check(shop.root_settings())
    assert finding.result == "failed"
    assert "does not exist: the shop's statements fail (1449)" in finding.detail
    shop.setup(shop.root_settings())
    assert shop.captured() == 3
    assert len(shop.triggers()) == 3


@pytest.mark.one_database("MySQL has no roles as definers")
def test_a_role_may_be_the_definer(shop):
    role = f"r{shop.stack.name[1:]}"
    shop.setup(shop.root_settings())
    shop.root(f"CREATE ROLE {role}", shop.named(f"GRANT SELECT, TRIGGER ON {{shop}}.orders TO {role}"))
    for trigger in shop.triggers():
        shop.root(
            f"DROP TRIGGER {trigger.name}",
            f"CREATE DEFINER={role} TRIGGER {trigger.name} AFTER {trigger.event} ON orders FOR EACH ROW {trigger.body}",
        )
    (finding,) = shop.check(shop.root_settings())
    assert finding.fix == f"GRANT INSERT ON `{shop.outbox}`.`purchase_outbox` TO '{role}'"
    shop.root(finding.fix)
    assert shop.captured() == 3
    assert shop.check(shop.root_settings()) == []
    assert shop.setup(shop.root_settings()) == []
    shop.root(f"DROP ROLE {role}")


def test_a_definer_that_cannot_be_read_is_reported_with_a_way_to_find_out(shop):
    shop.grant_least()
    shop.setup(shop.root_settings())
    (finding,) = shop.check()
    assert (finding.result, finding.name) == ("warning", f"definer {shop.triggers()[0].definer}")
    assert finding.fix.startswith("let an administrator execute: SHOW GRANTS FOR 'root'@")
    assert shop.setup() == []


def test_a_definer_that_does_not_exist_is_refused(shop):
    assert "the definer nobody@localhost does not exist" in shop.refusal(
        shop.root_settings(LATELY_SOURCE_DEFINER="nobody@localhost")
    )
    shop.grant_least()
    assert "LATELY_SOURCE_DEFINER" in shop.refusal(shop.settings(LATELY_SOURCE_DEFINER="nobody@localhost"))
    assert shop.tables() == set()


def test_the_printed_statements_make_a_locked_definer_and_a_user_with_the_least_privileges(shop):
    definer = f"lately_{shop.stack.name}@localhost"
    printed = setup_statements(shop.root_settings(LATELY_SOURCE_DEFINER=definer))
    shop.write()
    execute_script(shop, printed)
    assert {trigger.definer for trigger in shop.triggers()} == {definer}
    assert shop.captured() == 3
    assert shop.check(shop.root_settings()) == []
    with pytest.raises(mysql.connector.Error):
        mysql.connector.connect(host="127.0.0.1", port=shop.stack.servers.port, user=definer.partition("@")[0])
    # The user of Lately is printed as a comment: its password is not known.
    for line in printed.splitlines():
        if line.startswith("--   GRANT"):
            shop.root(line.removeprefix("--   ").rstrip(";").replace("'lately'@'%'", f"'{shop.user}'@'%'"))
    assert [one.name for one in shop.check()] == [f"definer {definer}"]  # which this user may not read
    assert shop.setup() == []
    shop.teardown()
    shop.write()
    shop.root(f"DROP USER {definer}")


def execute_script(shop: Shop, script: str) -> None:
    """Execute a script as a MySQL client does."""
    plain, with_delimiter = script.removesuffix("DELIMITER ;").split("DELIMITER //")
    for statement in [*plain.split(";\n"), *with_delimiter.split("//")]:
        lines = [line for line in statement.splitlines() if not line.startswith("--")]
        if "".join(lines).strip():
            shop.root("\n".join(lines).rstrip().rstrip(";"))


# -- triggers of other tables


def test_triggers_of_a_table_that_was_swapped_away_are_moved(shop):
    shop.grant_least()
    shop.grant("TRIGGER ON {shop}.*", "SELECT ON {shop}.*")
    shop.setup()
    # As gh-ost does it: the new table has the triggers of the old one, with a suffix.
    shop.root("CREATE TABLE _orders_gho LIKE orders")
    for trigger in shop.triggers():
        shop.root(f"CREATE TRIGGER {trigger.name}_gho AFTER {trigger.event} ON _orders_gho FOR EACH ROW {trigger.body}")
    shop.root("RENAME TABLE orders TO _orders_del, _orders_gho TO orders")
    assert shop.captured() == 3
    found = [finding for finding in shop.check() if finding.name.startswith("trigger ")]
    assert [f"is on {shop.stack.name}._orders_del" in finding.detail for finding in found] == [True] * 3
    lines = shop.setup()
    assert all(f"{shop.stack.name}._orders_del is removed" in line for line in lines if "removed" in line)
    assert sorted((trigger.table, trigger.event) for trigger in shop.triggers()) == [
        ("orders", "delete"), ("orders", "insert"), ("orders", "update"),
    ]  # fmt: skip
    assert shop.captured() == 3
    # The table that replaced the first one has no triggers.
    shop.root("CREATE TABLE _orders_gho LIKE orders", "RENAME TABLE orders TO old, _orders_gho TO orders")
    assert shop.captured() == 0
    assert len(shop.check()) == 6
    shop.setup()
    assert shop.captured() == 3
    assert shop.check() == []


def test_repeated_triggers_are_removed(shop):
    shop.grant_least()
    shop.setup()
    for trigger in shop.triggers():
        shop.root(f"CREATE TRIGGER {trigger.name}_copy AFTER {trigger.event} ON orders FOR EACH ROW {trigger.body}")
    assert shop.captured() == 6
    assert "captured twice" in str(shop.check())
    assert len(shop.setup()) == 3
    assert shop.captured() == 3


def test_teardown_removes_the_triggers_of_all_tables(shop):
    shop.setup(shop.root_settings())
    shop.root("CREATE TABLE old LIKE orders")
    for trigger in shop.triggers():
        shop.root(f"CREATE TRIGGER {trigger.name}_gho AFTER {trigger.event} ON old FOR EACH ROW {trigger.body}")
    shop.teardown(shop.root_settings())
    assert shop.triggers() == []
    shop.write()
    shop.root("INSERT INTO old SELECT * FROM orders")
    shop.root("INSERT INTO old VALUES ('o', 'Phone', 'ann', 1, NOW(), 'card', NULL)")


def test_the_table_of_another_setup_is_left_alone(shop):
    shop.root("CREATE TABLE sales LIKE orders")
    shop.setup(shop.root_settings(LATELY_SOURCE_TABLE="sales"))
    assert f"{shop.stack.name}.sales is captured with the same outbox" in shop.refusal(shop.root_settings())
    assert {trigger.table for trigger in shop.triggers()} == {"sales"}


def test_a_foreign_trigger_with_a_name_of_ours_is_left_alone(shop):
    shop.grant_least()
    shop.setup()
    name = shop.triggers()[0].name
    shop.teardown()
    shop.root("CREATE TABLE other (a INT)", f"CREATE TRIGGER {name} AFTER INSERT ON other FOR EACH ROW SET @a = 1")
    shop.setup()
    shop.root("INSERT INTO other VALUES (1)")
    assert shop.captured() == 3
    assert shop.check() == []


# -- errors of the server


def test_without_drop_teardown_changes_nothing(shop):
    shop.grant_least("DROP ON {outbox}.*")
    shop.setup()
    assert [one.result for one in shop.check()] == ["warning"]
    with pytest.raises(BadSource, match="nothing is removed: GRANT DROP ON"):
        shop.teardown()
    assert shop.captured() == 3
    assert shop.setup() == []


def test_a_view_has_no_triggers(shop):
    shop.root("CREATE VIEW seen AS SELECT * FROM orders")
    refusal = shop.refusal(shop.root_settings(LATELY_SOURCE_TABLE="seen"))
    assert "is a view, and views have no triggers: set LATELY_SOURCE_TABLE to the table below it" in refusal


@pytest.mark.parametrize("columns", ["id INT PRIMARY KEY, note TEXT", "id INT PRIMARY KEY, payload INT NOT NULL"])
def test_a_table_of_the_shop_with_the_name_of_the_outbox_is_named(shop, columns):
    shop.root(f"CREATE TABLE purchase_outbox ({columns})")
    refusal = shop.refusal(shop.root_settings(LATELY_SOURCE_OUTBOX="purchase_outbox"))
    assert "was not created by Lately: rename that table, or set LATELY_SOURCE_OUTBOX to another name" in refusal
    assert shop.stack.select("SHOW TABLES LIKE 'purchase%'") == [("purchase_outbox",)]


def test_a_read_only_server_is_named(shop, server_variable):
    shop.grant_least()
    server_variable("read_only", 1)
    with pytest.raises(BadSource, match="the server is read-only: set LATELY_MYSQL_HOST to the primary"):
        shop.setup()
    assert "writes" in [one.name for one in shop.check()]
    server_variable("read_only", 0)
    shop.write()
    assert shop.tables() == set()


def test_a_locked_table_is_named(shop):
    shop.grant_least()
    shop.setup()
    shop.root("ALTER TABLE orders ADD COLUMN paid_by VARCHAR(20) NULL")
    with closing(shop.stack.connect()) as other, closing(other.cursor()) as cursor:
        cursor.execute("LOCK TABLES orders READ")
        settings = shop.settings(LATELY_SOURCE_COLUMNS="payment_method=paid_by")
        with closing(connect(settings)) as connection, closing(connection.cursor()) as ours:
            ours.execute("SET SESSION lock_wait_timeout = 1")
            with pytest.raises(BadSource, match="a transaction or LOCK TABLES holds a table"):
                install(connection, locate_outbox(connection, settings))
    assert shop.captured() == 3
    assert len(shop.triggers()) == 3


def test_a_probe_that_was_left_behind_is_removed(shop):
    shop.grant_least()
    shop.root(shop.named("CREATE DATABASE {outbox}"))
    shop.root(shop.named("CREATE TABLE {outbox}.purchase_outbox_probe (id TINYINT NOT NULL PRIMARY KEY)"))
    shop.root(shop.named(
        "CREATE TRIGGER {outbox}.purchase_outbox_probe AFTER INSERT ON {outbox}.purchase_outbox_probe"
        " FOR EACH ROW SET @a = 1"
    ))  # fmt: skip
    shop.setup()
    assert "purchase_outbox_probe" not in shop.tables()
    assert shop.captured() == 3


# -- primary keys


@pytest.mark.mysql_only("MariaDB has no sql_require_primary_key")
def test_every_table_of_lately_has_a_primary_key(shop, server_variable):
    shop.grant_least()
    server_variable("sql_require_primary_key", 1)
    shop.setup()
    assert shop.captured() == 3
    assert shop.check() == []


@pytest.mark.mysql_only("MariaDB generates no keys")
def test_a_generated_invisible_key_is_used_whether_it_is_shown_or_not(shop, server_variable):
    shop.grant_least()
    server_variable("sql_generate_invisible_primary_key", 1)
    shop.root(
        "DROP TABLE orders",
        "CREATE TABLE orders (order_id VARCHAR(64), product_name VARCHAR(64), user_id VARCHAR(64), price DECIMAL(9,2),"
        " ordered_at DATETIME(6), payment_method VARCHAR(9), category CHAR(9)) COLLATE utf8mb4_bin",
    )
    shop.setup()
    bodies = [trigger.body for trigger in shop.triggers()]
    assert any("my_row_id" in body for body in bodies)
    server_variable("show_gipk_in_create_table_and_information_schema", 0)
    assert shop.check() == []
    assert shop.setup() == []
    assert shop.captured() == 3


# -- an earlier version


def test_the_privileges_of_earlier_versions_are_still_sufficient(shop):
    shop.grant("CREATE, ALTER, TRIGGER, LOCK TABLES, SELECT, INSERT, UPDATE, DELETE ON {shop}.*")
    shop.grant_role()
    in_shop = {"LATELY_SOURCE_OUTBOX": "purchase_outbox"}
    shop.setup(shop.settings(**in_shop))
    shop.root("ALTER TABLE orders ADD COLUMN paid_by VARCHAR(20) NULL")
    shop.setup(shop.settings(**in_shop, LATELY_SOURCE_COLUMNS="payment_method=paid_by"))
    shop.write()
    assert shop.stack.select("SELECT COUNT(*) FROM purchase_outbox") == [(3,)]
    # Without DROP the table of the trial stays, but not its trigger.
    triggers = "SELECT event_object_table FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
    assert shop.stack.select(triggers) == [("orders",)] * 3
    found = shop.check(shop.settings(**in_shop, LATELY_SOURCE_COLUMNS="payment_method=paid_by"))
    assert [(finding.result, finding.name.split()[1]) for finding in found] == [("warning", "DROP")]


def test_a_second_setup_that_was_killed_between_its_statements_is_completed(shop, monkeypatch):
    shop.grant_least()
    shop.setup()
    shop.root("ALTER TABLE orders ADD COLUMN paid_by VARCHAR(20) NULL")
    renamed = shop.settings(LATELY_SOURCE_COLUMNS="payment_method=paid_by")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("source.install._drop", die)
    with pytest.raises(KeyboardInterrupt):
        shop.setup(renamed)
    monkeypatch.undo()
    assert shop.captured() == 6, "twice is better than never"
    shop.setup(renamed)
    assert shop.captured() == 3
    assert len(shop.triggers()) == 3
