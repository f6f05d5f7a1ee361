"""Locks of sources, snapshots and switches: who may take one, who frees it, and what it leaves alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import datetime

import pytest
from mysql.connector import errorcode
from mysql.connector.errors import DatabaseError

from app.errors import DatabaseAway
from app.settings import Settings
from source import lock_table, locks
from source.locks import HANDOVER, LEADER
from source.mysql import connect
from source.outbox import Outbox
from source.setup import setup
from tests.kit.eventually import eventually
from tests.kit.stack import Stack

pytestmark = pytest.mark.both_databases

AT = datetime(2026, 1, 31, 12, 0, 0)


@pytest.fixture
def former_shop(stack: Stack) -> Stack:
    """A shop whose outbox is in its own database, as in earlier versions."""
    stack.create_orders()
    stack.env["LATELY_SOURCE_OUTBOX"] = "purchase_outbox"
    setup(Settings.from_env(stack.env), "1d", quiet)
    return stack


@pytest.fixture
def connection(shop: Stack, settings: Settings) -> Iterator:
    with closing(connect(settings)) as one:
        yield one


@pytest.fixture
def stranger(stack: Stack) -> Iterator[Settings]:
    """An account that has no privilege on any table."""
    user = f"s{stack.name[1:]}"
    stack.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'")
    try:
        yield replace(
            Settings.from_env(stack.env), mysql_user=user, mysql_password="secret",
            mysql_database="information_schema",
        )  # fmt: skip
    finally:
        stack.execute(f"DROP USER '{user}'@'%'")


def quiet(_: str) -> None:
    """Where the setup reports."""


def take_named(connection, name: str) -> bool:
    """Take a named lock of the server, as any account can."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
        return cursor.fetchone() == (1,)


def can_flush(cursor) -> bool:
    """Whether a dump of the whole server could begin now."""
    try:
        cursor.execute("FLUSH TABLES WITH READ LOCK")
    except DatabaseError as error:
        if error.errno != errorcode.ER_LOCK_WAIT_TIMEOUT:
            raise
        return False
    cursor.execute("UNLOCK TABLES")
    return True


def test_a_lock_has_one_holder_whom_others_can_name(connection, settings):
    assert locks.find_holder(connection, settings, LEADER) is None
    held = locks.acquire(connection, settings, LEADER, 0)
    assert held is not None
    held.require()
    with closing(connect(settings)) as other:
        assert locks.acquire(other, settings, LEADER, 1) is None
        holder = locks.find_holder(other, settings, LEADER)
        assert f":{os.getpid()} since 20" in holder
        assert holder.endswith(f"connection {held.row_connection_id}")
        assert locks.find_holder(other, settings, HANDOVER) is None
        held.release()
        again = locks.acquire(other, settings, LEADER, 5)
        assert again is not None
        again.release()


def test_the_server_frees_the_lock_of_a_connection_that_ends(shop, connection, settings):
    held = locks.acquire(connection, settings, LEADER, 0)
    shop.execute(f"KILL {held.row_connection_id}")
    eventually(lambda: locks.find_holder(connection, settings, LEADER) is None, within=5)
    with pytest.raises(Exception, match=r"Lost connection|gone away|not available"):
        held.require()
    held.release()


def test_checks_do_not_disturb_each_other(connection, settings):
    def check(_: int) -> int:
        with closing(connect(settings)) as other:
            return sum(locks.find_holder(other, settings, LEADER) is not None for _ in range(200))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(check, range(8))) == 0


def test_only_one_of_many_gets_the_lock(connection, settings):
    def acquire(_: int) -> locks.HeldLock | None:
        with closing(connect(settings)) as other:
            return locks.acquire(other, settings, LEADER, 0.5)

    with ThreadPoolExecutor(8) as pool:
        held = [lock for lock in pool.map(acquire, range(8)) if lock is not None]
    assert len(held) == 1
    held[0].release()


def test_a_held_lock_lets_dumps_lock_all_tables_and_is_no_writing_transaction(shop, connection, settings):
    held = locks.acquire(connection, settings, LEADER, 0)
    try:
        with closing(shop.connect()) as dump, closing(dump.cursor()) as cursor:
            cursor.execute("SET SESSION lock_wait_timeout = 3")
            cursor.execute(f"LOCK TABLES {shop.outbox()} READ, {shop.outbox('_locks')} READ")
            cursor.execute("UNLOCK TABLES")
            # Transactions of other tests on the same server also hold it up, but each of them ends.
            eventually(lambda: can_flush(cursor), within=60)
            cursor.execute(
                "SELECT CAST(trx_id AS UNSIGNED) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = %s",
                (held.row_connection_id,),
            )
            ((number,),) = cursor.fetchall()
            assert number == 0 or number >= 2**48
        held.require()
    finally:
        held.release()


def test_a_named_lock_of_an_account_without_privileges_changes_nothing(former_shop, stranger, caplog):
    settings = Settings.from_env(former_shop.env)
    with closing(connect(settings)) as connection, closing(connect(stranger)) as other:
        for kind in (LEADER, HANDOVER):
            assert take_named(other, locks.lock_name(settings, kind))
            assert locks.find_holder(connection, settings, kind) is None
        held = locks.acquire(connection, settings, LEADER, 0)
        assert held is not None
        assert f"connection {other.connection_id} of {stranger.mysql_user}@" in caplog.text
        held.release()


def test_an_account_without_privileges_cannot_take_the_lock(shop, stranger):
    with closing(connect(stranger)) as other, closing(other.cursor()) as cursor:
        with pytest.raises(Exception, match="denied"):
            cursor.execute(f"SELECT 1 FROM `{shop.name}_lately`.purchase_outbox_locks FOR UPDATE")


def test_a_source_of_an_earlier_version_and_this_one_exclude_each_other(former_shop):
    settings = Settings.from_env(former_shop.env)
    assert locks.lock_name(settings, LEADER) == f"lately:{former_shop.name}.purchase_outbox"
    with closing(connect(settings)) as connection, closing(connect(settings)) as former:
        held = locks.acquire(connection, settings, LEADER, 0)
        assert not take_named(former, locks.lock_name(settings, LEADER))
        held.release()
        eventually(lambda: take_named(former, locks.lock_name(settings, LEADER)), within=5)
        assert locks.acquire(connection, settings, LEADER, 0) is None
        holder = locks.find_holder(connection, settings, LEADER)
        assert holder.startswith(f"an earlier version of Lately: connection {former.connection_id} of ")


def test_an_installation_without_the_table_of_locks_gets_one(former_shop):
    settings = Settings.from_env(former_shop.env)
    former_shop.execute("DROP TABLE purchase_outbox_locks")
    with closing(connect(settings)) as connection:
        held = locks.acquire(connection, settings, LEADER, 0)
        assert former_shop.select("SELECT holder IS NOT NULL FROM purchase_outbox_locks WHERE name = 'leader.holder'")
        held.release()


def test_a_source_that_lost_the_lock_deletes_no_rows(shop, connection, settings):
    shop.insert(("o1", "Phone", "ann", "19.90", AT, "card"))
    former = locks.acquire(connection, settings, LEADER, 0)
    capture = Outbox(connection, settings, former.row_connection_id)
    rows = capture.read_rows()
    former.release()
    with closing(connect(settings)) as other:
        held = locks.acquire(other, settings, LEADER, 5)
        with pytest.raises(DatabaseAway, match="has taken the leader's lock"):
            capture.mark_published(rows)
        assert shop.count_outbox() == 1
        Outbox(other, settings, held.row_connection_id).mark_published(rows)
        assert shop.count_outbox() == 0
        held.release()


def test_a_table_that_another_session_has_locked_is_no_held_lock(shop, connection, settings):
    with closing(shop.connect()) as other, closing(other.cursor()) as cursor:
        cursor.execute(f"LOCK TABLES {shop.outbox('_locks')} WRITE")
        with closing(connection.cursor()) as ours:
            ours.execute("SET SESSION lock_wait_timeout = 1")
        with pytest.raises(Exception, match="1205"):
            lock_table.is_locked(connection, settings, LEADER)
        cursor.execute("UNLOCK TABLES")
    assert not lock_table.is_locked(connection, settings, LEADER)
