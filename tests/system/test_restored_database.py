"""A database that is restored from a backup: new versions win, and one command makes the tables equal to it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from app.control import state_topic
from app.settings import Settings
from local.artifacts import Artifacts
from local.database import start_database
from local.process import LocalProcess
from source.outbox_table import with_outbox
from tests.kit.eventually import eventually
from tests.kit.stack import Servers, Stack, Worker

pytestmark = [pytest.mark.both_databases, pytest.mark.slow_on("mariadb"), pytest.mark.cost(20)]

AT = datetime(2026, 1, 31, 12)
USERS = [f"user-{number}" for number in range(5)]


@pytest.fixture
def shop(stack: Stack) -> Stack:
    """A shop that is set up."""
    stack.create_orders()
    stack.setup()
    return stack


@pytest.fixture
def second(shop: Stack, database_artifacts: Artifacts, kafka: str, tmp_path: Path) -> Iterator[Stack]:
    """The same shop on another server, where its database does not exist yet."""
    with start_database(database_artifacts, tmp_path / "second") as server:
        servers = Servers(kafka, server.host, server.port, server.user, server.password)
        stack = Stack(servers, shop.folder, shop.name)
        yield stack
        for process in stack.processes:
            process.kill()


def order(number: int, price: str = "19.90") -> tuple:
    """One of the rows that Stack.insert takes."""
    return (f"o{number:05}", f"Product {number % 3}", USERS[number % len(USERS)], price, AT, "card")


def place(shop: Stack, first: int, count: int) -> None:
    """Orders with consecutive numbers, in transactions of their own."""
    for number in range(first, first + count):
        shop.insert(order(number))


def client(artifacts: Artifacts, program: str, stack: Stack) -> list[str]:
    """The command of a client program for the server of a stack."""
    name = program if artifacts.product == "mysql" else {"mysql": "mariadb", "mysqldump": "mariadb-dump"}[program]
    servers = stack.servers
    return [
        str(artifacts.database.parent / name), "--no-defaults", f"--host={servers.host}", f"--port={servers.port}",
        f"--user={servers.user}",
    ]  # fmt: skip


def dump(artifacts: Artifacts, stack: Stack, *databases: str) -> bytes:
    """What mysqldump prints."""
    options = ["--single-transaction"]
    if artifacts.product == "mysql":
        options.append("--set-gtid-purged=OFF")  # the same server refuses the dump otherwise
    command = [*client(artifacts, "mysqldump", stack), *options, "--databases", *databases]
    return subprocess.run(command, check=True, capture_output=True).stdout


def restore(artifacts: Artifacts, stack: Stack, statements: bytes) -> None:
    """Let the client program execute what mysqldump has printed."""
    done = subprocess.run(client(artifacts, "mysql", stack), check=False, capture_output=True, input=statements)
    assert done.returncode == 0, done.stderr.decode()


def schemas(shop: Stack) -> tuple[str, str]:
    """The shop's database, and the schema of the outbox."""
    return shop.name, with_outbox(Settings.from_env(shop.env)).outbox.schema


def back_up(shop: Stack, artifacts: Artifacts, source: LocalProcess) -> tuple[bytes, LocalProcess]:
    """A dump whose outbox contains rows that are published later, and changes after it; returns it and the source."""
    source.kill()
    place(shop, 20, 5)
    saved = dump(artifacts, shop, *schemas(shop))
    source = shop.source()
    place(shop, 30, 10)
    shop.execute("UPDATE orders SET price = 7 WHERE order_id < 'o00010'")
    shop.execute("DELETE FROM orders WHERE order_id BETWEEN 'o00010' AND 'o00015'")
    eventually(shop.outbox_is_empty, within=30)
    return saved, source


def running(shop: Stack) -> tuple[LocalProcess, Worker]:
    """A source and a worker that know the first orders."""
    place(shop, 0, 20)
    source, worker = shop.source(), shop.worker(LATELY_SIMILAR="0").start()
    worker.wait_ready()
    eventually(lambda: shop.assert_equal_to_sql(worker, USERS), within=60)
    return source, worker


def make_exact(shop: Stack, source: LocalProcess, worker: Worker) -> None:
    """Run the command that the log names; afterwards the tables are as SQL has it, and changes win."""
    eventually(lambda: [problem["kind"] for problem in shop.status()["problems"]] == ["restored"], within=40)
    assert shop.status()["guarantee"] == "none"
    eventually(lambda: worker.get("/readyz?verbose").json["source_problems"] == ["restored"])
    assert 'lately_source_problems{kind="restored"} 1.0' in worker.get("/metrics").text
    assert "Problem: restored" in worker.get("/operator").text
    assert worker.get(f"/v1/users/{USERS[0]}/purchases").json["meta"]["guarantee"] == "none"
    assert "run `lately verify --repair`" in source.tail(400)
    repaired = shop.lately("verify", "--repair", "--worker", f"http://127.0.0.1:{worker.port}")
    assert repaired.child.returncode == 0, repaired.tail()
    eventually(lambda: shop.assert_equal_to_sql(worker, USERS), within=30)
    shop.execute("UPDATE orders SET price = 99")
    place(shop, 50, 3)
    eventually(lambda: shop.assert_equal_to_sql(worker, USERS), within=30)
    eventually(lambda: shop.status()["guarantee"] == "proven", within=30)
    assert shop.status()["problems"] == []
    assert source.is_running, source.tail()


@pytest.mark.parametrize(
    "writes_first",
    [pytest.param(False, id="before any write", marks=pytest.mark.slow), pytest.param(True, id="after writes")],
)
def test_a_dump_restored_on_another_server_is_exact_after_the_command_that_the_log_names(
    shop: Stack, second: Stack, database_artifacts: Artifacts, writes_first: bool
):
    source, worker = running(shop)
    saved, source = back_up(shop, database_artifacts, source)
    source.kill()
    restore(database_artifacts, second, saved)
    if writes_first:
        # More ids than those that were published after the dump: the next one is above all of them.
        place(second, 100, 60)
        second.execute("UPDATE orders SET price = 5 WHERE order_id > 'o00018'")
    source = second.source()
    make_exact(second, source, worker)


@pytest.mark.slow
def test_a_dump_restored_under_a_running_source_is_exact_after_the_command(shop: Stack, database_artifacts: Artifacts):
    source, worker = running(shop)
    saved, source = back_up(shop, database_artifacts, source)
    restore(database_artifacts, shop, saved)
    place(shop, 100, 2)
    make_exact(shop, source, worker)


@pytest.mark.slow
def test_a_dump_without_the_outbox_is_exact_after_setup_and_the_command(
    shop: Stack, second: Stack, database_artifacts: Artifacts
):
    source, worker = running(shop)
    saved = dump(database_artifacts, shop, shop.name)
    place(shop, 30, 10)
    shop.execute("DELETE FROM orders WHERE order_id BETWEEN 'o00010' AND 'o00015'")
    eventually(shop.outbox_is_empty, within=30)
    source.kill()
    restore(database_artifacts, second, saved)
    refused = second.lately("source")
    assert refused.child.returncode == 2
    done = second.lately("source", "setup", "--all")
    assert done.child.returncode == 0, done.tail()
    assert "run `lately verify --repair`" in done.tail(20)
    make_exact(second, second.source(), worker)


def wait_until_noted(shop: Stack) -> None:
    """Wait for a status with the newest version: a source recognizes a reused id by a time after that status."""
    newest = max(event["data"]["version"] for event in shop.events())

    def highest() -> int:
        status = asyncio.run(state_topic.read(Settings.from_env(shop.env))).status
        return 0 if status is None else status.highest_version

    eventually(lambda: highest() >= newest, within=30)


@pytest.mark.parametrize(
    "is_killed", [pytest.param(False, id="running", marks=pytest.mark.slow), pytest.param(True, id="killed")]
)
def test_ids_that_begin_again_get_versions_above_the_published_ones(shop: Stack, is_killed: bool):
    place(shop, 0, 5)
    source = shop.source()
    eventually(shop.outbox_is_empty, within=30)
    first = shop.select(f"SELECT first_version FROM {shop.outbox('_state')}")[0][0]
    for price in range(20):
        shop.execute(f"UPDATE orders SET price = {price}")
    eventually(shop.outbox_is_empty, within=30)
    wait_until_noted(shop)
    if is_killed:
        source.kill()
    shop.execute(f"ALTER TABLE {shop.outbox()} AUTO_INCREMENT = {first}")
    shop.execute("UPDATE orders SET price = 99")
    if is_killed:
        source = shop.source()
    eventually(lambda: [problem["kind"] for problem in shop.status()["problems"]] == ["restored"], within=40)
    eventually(shop.outbox_is_empty, within=30)
    shop.execute("UPDATE orders SET price = 98 WHERE order_id = 'o00001'")
    eventually(shop.outbox_is_empty, within=30)
    eventually(shop.assert_topic_equals_sql, within=30)
    assert source.is_running, source.tail()


@pytest.mark.slow
def test_a_source_that_may_not_alter_the_outbox_publishes_nothing_until_setup_has_run(shop: Stack):
    user, (database, outbox) = f"u{shop.name[1:]}", schemas(shop)
    shop.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY ''")
    try:
        shop.execute(f"GRANT SELECT, TRIGGER ON `{database}`.* TO '{user}'@'%'")
        shop.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE, LOCK TABLES ON `{outbox}`.* TO '{user}'@'%'")
        source = shop.source(LATELY_MYSQL_USER=user, LATELY_MYSQL_PASSWORD="")
        place(shop, 0, 5)
        eventually(shop.outbox_is_empty, within=30)
        first = shop.select(f"SELECT first_version FROM {shop.outbox('_state')}")[0][0]
        for price in range(20):
            shop.execute(f"UPDATE orders SET price = {price}")
        eventually(shop.outbox_is_empty, within=30)
        wait_until_noted(shop)
        shop.execute(f"ALTER TABLE {shop.outbox()} AUTO_INCREMENT = {first}")
        shop.execute("UPDATE orders SET price = 99")
        eventually(lambda: [problem["kind"] for problem in shop.status()["problems"]] == ["restored"], within=40)
        eventually(lambda: "as a user who may alter the outbox" in shop.status()["reasons"], within=30)
        assert shop.count_outbox() == 5
        shop.setup(None)
        eventually(shop.outbox_is_empty, within=30)
        eventually(shop.assert_topic_equals_sql, within=30)
        eventually(lambda: "run `lately verify --repair`, which" in shop.status()["reasons"], within=30)
        assert source.is_running, source.tail()
    finally:
        shop.execute(f"DROP USER '{user}'@'%'")


def test_a_crash_before_rows_are_deleted_repeats_them_and_is_no_restored_database(shop: Stack):
    source = shop.source(LATELY_SOURCE_BATCH_ROWS="5")
    for number in range(4):
        place(shop, number * 50, 50)
        source.kill()
        source = shop.source(LATELY_SOURCE_BATCH_ROWS="5")
    eventually(shop.outbox_is_empty, within=60)
    eventually(lambda: shop.status()["guarantee"] == "proven", within=30)
    assert shop.status()["problems"] == []
    shop.assert_topic_equals_sql()


@pytest.mark.group("watermark")
@pytest.mark.parametrize(
    "is_killed", [pytest.param(False, id="running", marks=pytest.mark.slow), pytest.param(True, id="killed")]
)
def test_a_numbered_table_that_is_restored_is_exact_after_the_command(
    watermark_stack: Stack, database_artifacts: Artifacts, is_killed: bool
):
    shop = watermark_stack
    shop.create_numbered_orders()
    shop.setup()
    source, worker = running(shop)
    saved = dump(database_artifacts, shop, shop.name)
    place(shop, 30, 10)
    eventually(lambda: shop.assert_equal_to_sql(worker, USERS), within=30)
    eventually(lambda: shop.watermark() == 30, within=30)
    if is_killed:
        source.kill()
    restore(database_artifacts, shop, saved)
    place(shop, 60, 3)
    if is_killed:
        source = shop.source()
    eventually(lambda: [problem["kind"] for problem in shop.status()["problems"]] == ["restored"], within=40)
    repaired = shop.lately("verify", "--repair", "--worker", f"http://127.0.0.1:{worker.port}")
    assert repaired.child.returncode == 0, repaired.tail()
    place(shop, 70, 3)
    eventually(lambda: shop.assert_equal_to_sql(worker, USERS), within=30)
    eventually(lambda: shop.status()["problems"] == [], within=30)
