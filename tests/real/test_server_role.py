"""A replica never looks like a primary, whatever the user may read; a primary is recognized with the privileges of
the README.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import mysql.connector
import pytest

from app.control.source_state import PROVEN
from app.errors import BadSource
from app.settings import OUTBOX, WATERMARK, Settings
from local.artifacts import MYSQL, Artifacts
from local.database import start_database
from local.database_server import DatabaseServer
from local.shop import TABLE
from source.check import check_source
from source.guarantee import Guarantee, assess
from source.mysql import connect
from source.server_role import find_write_block
from source.setup import setup
from tests.kit.eventually import eventually

pytestmark = pytest.mark.both_databases

#: The users of the tests: those of the README for each mode, with and without the privilege to read replications.
OUTBOX_PRIVILEGES = "CREATE, ALTER, TRIGGER, LOCK TABLES, SELECT, INSERT, UPDATE, DELETE ON shop.*"
USERS = {
    "outbox": [OUTBOX_PRIVILEGES],
    "watermark": ["SELECT ON shop.*", "PROCESS ON *.*"],
    "outbox_monitor": [OUTBOX_PRIVILEGES, "{monitor} ON *.*"],
    "watermark_monitor": ["SELECT ON shop.*", "PROCESS, {monitor} ON *.*"],
}


class Pair(NamedTuple):
    """A primary, and a writable replica of it."""

    product: str
    primary: DatabaseServer
    replica: DatabaseServer

    @property
    def monitor(self) -> str:
        return "REPLICATION CLIENT" if self.product == MYSQL else "SLAVE MONITOR"

    def words(self, statement: str) -> str:
        """A statement about replicas in the words of the product."""
        return statement if self.product == MYSQL else statement.replace("REPLICA", "SLAVE")

    def replicate(self) -> None:
        """Let the replica follow the primary."""
        if self.product == MYSQL:
            name, prefix, more = "REPLICATION SOURCE", "SOURCE", "GET_SOURCE_PUBLIC_KEY=1, SOURCE_AUTO_POSITION=1"
        else:
            name, prefix, more = "MASTER", "MASTER", "MASTER_SSL=0, MASTER_USE_GTID=slave_pos"
        execute(
            self.replica,
            f"CHANGE {name} TO {prefix}_HOST='127.0.0.1', {prefix}_PORT={self.primary.port}, {prefix}_USER='repl',"
            f" {prefix}_PASSWORD='secret', {more}",
            self.words("START REPLICA"),
        )


def execute(server: DatabaseServer, *statements: str) -> list[tuple]:
    """The rows of the last statement."""
    rows: list[tuple] = []
    with mysql.connector.connect(
        host=server.host, port=server.port, user="root", autocommit=True, charset="utf8mb4",
        collation="utf8mb4_general_ci", use_pure=True, ssl_disabled=True,
    ) as connection, closing(connection.cursor()) as cursor:  # fmt: skip
        for statement in statements:
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
    return rows


@pytest.fixture(scope="module")
def pair(database_product: str, database_artifacts: Artifacts, tmp_path_factory) -> Iterator[Pair]:
    folder: Path = tmp_path_factory.mktemp("pair")
    options = ["--log-bin=binlog", "--binlog-format=ROW"]
    primary = start_database(database_artifacts, folder / "primary", None, "--server-id=1", *options)
    with primary, start_database(database_artifacts, folder / "replica", None, "--server-id=2", *options) as replica:
        pair = Pair(database_product, primary, replica)
        execute(primary, "CREATE USER repl IDENTIFIED BY 'secret'", "GRANT REPLICATION SLAVE ON *.* TO repl")
        pair.replicate()
        execute(
            primary, "CREATE DATABASE shop", "USE shop", TABLE, "ALTER TABLE orders ADD id BIGINT AUTO_INCREMENT UNIQUE"
        )
        for user, grants in USERS.items():
            execute(primary, f"CREATE USER {user} IDENTIFIED BY ''")
            execute(primary, *(f"GRANT {grant.format(monitor=pair.monitor)} TO {user}" for grant in grants))
        execute(primary, "CREATE DATABASE replicated")
        eventually(lambda: execute(replica, "SHOW DATABASES LIKE 'replicated'"), 30)
        yield pair


def settings_for(server: DatabaseServer, user: str) -> Settings:
    mode = user.partition("_")[0]
    return Settings(kafka="127.0.0.1:1", mysql_port=server.port, mysql_user=user, source_mode=mode)


def assessment(server: DatabaseServer, user: str) -> Guarantee:
    settings = settings_for(server, user)
    with closing(connect(settings)) as connection:
        return assess(connection, settings)


@pytest.mark.parametrize("mode", [OUTBOX, WATERMARK])
def test_a_primary_is_proven(pair: Pair, mode: str):
    assert assessment(pair.primary, f"{mode}_monitor") == Guarantee(PROVEN)


@pytest.mark.parametrize("mode", [OUTBOX, WATERMARK])
def test_without_the_privilege_to_read_replications_only_mariadb_shows_that_it_has_none(pair: Pair, mode: str):
    result = assessment(pair.primary, mode)
    if pair.product == MYSQL:
        level, (reason,) = "none" if mode == OUTBOX else "timed", result.reasons
        assert result.level == level
        assert reason.endswith(f": GRANT REPLICATION CLIENT ON *.* TO '{mode}'@'%'")
    else:
        assert result == Guarantee(PROVEN)


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("user", list(USERS))
def test_a_writable_replica_is_never_proven(pair: Pair, user: str, is_running: bool):
    execute(pair.replica, pair.words("START REPLICA" if is_running else "STOP REPLICA"))
    result = assessment(pair.replica, user)
    assert result.level == ("none" if user.startswith(OUTBOX) else "timed")
    (reason,) = result.reasons
    if "monitor" in user:
        assert reason.startswith("the server is a replica: set LATELY_MYSQL_HOST to its primary")
    else:
        # Running threads are visible with PROCESS, and on MariaDB for everybody.
        assert ("is a replica: " in reason) == (is_running and (user == WATERMARK or pair.product != MYSQL))
        assert ("is a replica: " in reason) or reason.endswith(f": GRANT {pair.monitor} ON *.* TO '{user}'@'%'")
    (finding,) = [one for one in check_source(settings_for(pair.replica, user)) if one.name == "guarantee"]
    assert finding.result == "failed"
    assert finding.fix == reason.partition(": ")[2]


@pytest.mark.parametrize("mode", [OUTBOX, WATERMARK])
def test_a_replica_that_became_the_primary_is_proven_for_a_user_who_may_read_replications(pair: Pair, mode: str):
    execute(pair.replica, pair.words("STOP REPLICA"), pair.words("RESET REPLICA ALL"))
    try:
        assert assessment(pair.replica, f"{mode}_monitor") == Guarantee(PROVEN)
        (reason,) = assessment(pair.replica, mode).reasons
        assert "it has executed transactions of another server: GRANT" in reason
    finally:
        pair.replicate()


def test_a_read_only_server_is_recognized_without_a_write(pair: Pair):
    settings = settings_for(pair.primary, "outbox_monitor")
    for option in ("read_only", "super_read_only") if pair.product == MYSQL else ("read_only",):
        try:
            execute(pair.primary, f"SET GLOBAL {option} = ON")
            with closing(connect(settings)) as connection:
                assert find_write_block(connection) == option
            with closing(connect(replace(settings, mysql_user="root"))) as connection:
                # An administrator may write to a server that is read-only for others.
                assert find_write_block(connection) == (None if option == "read_only" else option)
            findings = {one.name: one for one in check_source(settings)}
            # Kafka is not asked: nothing listens at the address of the settings.
            with pytest.raises(BadSource, match=rf"read-only \({option}\): set LATELY_MYSQL_HOST"):
                setup(settings, None)
        finally:
            execute(pair.primary, "SET GLOBAL read_only = OFF")
        assert findings["writes"].result == "failed"
        assert option in findings["writes"].detail
        with closing(connect(settings)) as connection:
            assert find_write_block(connection) is None


@pytest.mark.parametrize("is_running", [True, False])
def test_setup_creates_nothing_on_a_replica(pair: Pair, is_running: bool):
    execute(pair.replica, pair.words("START REPLICA" if is_running else "STOP REPLICA"))
    before = execute(pair.replica, "SHOW DATABASES")
    with pytest.raises(BadSource, match="the server is a replica: set LATELY_MYSQL_HOST to its primary"):
        setup(settings_for(pair.replica, "outbox_monitor"), None)
    assert execute(pair.replica, "SHOW DATABASES") == before
    assert execute(pair.replica, "SHOW TRIGGERS FROM shop") == []
