"""A member of MySQL's Group Replication: its primary is proven, a stopped member and a second primary are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import mysql.connector
import pytest

from app.control.source_state import PROVEN
from app.settings import OUTBOX, WATERMARK, Settings
from local.artifacts import Artifacts
from local.database import start_database
from local.database_server import DatabaseServer
from local.process import find_free_port
from local.shop import TABLE
from source.guarantee import Guarantee, assess
from source.mysql import connect

pytestmark = pytest.mark.mysql_only("MariaDB has Galera instead")


def execute(server: DatabaseServer, *statements: str) -> None:
    with closing(
        mysql.connector.connect(
            host=server.host, port=server.port, user="root", autocommit=True, use_pure=True, ssl_disabled=True
        )
    ) as connection, closing(connection.cursor()) as cursor:  # fmt: skip
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture(scope="module")
def member(database_artifacts: Artifacts, tmp_path_factory) -> Iterator[DatabaseServer]:
    """A group of one member, which the tests start."""
    options = (
        "--server-id=1", "--plugin-load-add=group_replication.so", "--group-replication-start-on-boot=OFF",
        "--group-replication-group-name=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
        f"--group-replication-local-address=127.0.0.1:{find_free_port()}", "--group-replication-bootstrap-group=ON",
    )  # fmt: skip
    with start_database(database_artifacts, tmp_path_factory.mktemp("group"), None, *options) as server:
        execute(server, "CREATE DATABASE shop", "USE shop", TABLE)
        yield server


def assessment(member: DatabaseServer, mode: str) -> Guarantee:
    settings = Settings(mysql_port=member.port, source_mode=mode)
    with closing(connect(settings)) as connection:
        return assess(connection, settings)


def test_the_only_primary_of_a_group_is_proven_and_a_stopped_member_is_not(member):
    execute(member, "START GROUP_REPLICATION")
    try:
        assert assessment(member, OUTBOX) == Guarantee(PROVEN)
        assert assessment(member, WATERMARK).level == "timed"
    finally:
        execute(member, "STOP GROUP_REPLICATION")
    stopped = assessment(member, OUTBOX)
    assert (stopped.level, len(stopped.reasons)) == ("none", 1)
    assert stopped.reasons[0].startswith("the server is a secondary of its replication group: set LATELY_MYSQL_HOST")


@pytest.mark.parametrize("mode", [OUTBOX, WATERMARK])
def test_a_primary_beside_other_primaries_is_not_proven(member, mode):
    execute(member, "SET GLOBAL group_replication_single_primary_mode = OFF", "START GROUP_REPLICATION")
    try:
        result = assessment(member, mode)
    finally:
        execute(member, "STOP GROUP_REPLICATION", "SET GLOBAL group_replication_single_primary_mode = ON")
    assert result.level == "timed"
    assert "several primaries" in result.reasons[0]
