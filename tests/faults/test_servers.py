"""Faults of servers that nobody else may use: the disk of the broker, the process of the database. `make faults`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.artifacts import Artifacts
from local.database import start_database
from local.database_server import DatabaseServer
from tests.faults.disk import SmallDisk
from tests.faults.fault_setup import Rig
from tests.kit.eventually import eventually

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def mariadb(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    """A database server that may be killed."""
    with start_database(artifacts, tmp_path_factory.mktemp("database")) as server:
        yield server


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    """The disk of the broker."""
    with SmallDisk(tmp_path_factory.mktemp("broker"), mib=256) as one:
        yield one


@pytest.fixture(scope="module")
def rig(
    artifacts: Artifacts, mariadb: DatabaseServer, disk: SmallDisk, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A shop with its source and two workers on servers of its own."""
    database = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
    folder = tmp_path_factory.mktemp("rig")
    (folder / "broker").mkdir()
    (folder / "broker" / "kafka").symlink_to(disk.path)
    with Rig(artifacts, database, folder) as one:
        yield one


def test_a_broker_whose_disk_is_full_ends_and_all_goes_on_once_there_is_room(rig: Rig, disk: SmallDisk):
    with rig.shop.trading():
        disk.fill()
        eventually(lambda: not rig.broker.process.is_running, within=60)
        for worker in rig.workers.values():
            assert worker.get("/v1/users/user-1/purchases").status in (200, 503)
        disk.free()
        rig.broker.kill()  # forgets the pid
        rig.broker.start()
    for end in rig.settle():
        assert "lately: " in end.words.splitlines()[-1]


def test_a_database_that_is_killed_is_waited_for(rig: Rig, mariadb: DatabaseServer):
    with rig.shop.trading():
        mariadb.kill()
        try:
            eventually(lambda: "no answer from MySQL" in rig.source.tail(2), within=30)
            for worker in rig.workers.values():
                assert worker.get("/v1/users/user-1/purchases").status == 200
        finally:
            mariadb.start()
        bought = rig.shop.committed
        eventually(lambda: rig.shop.committed > bought, within=30)
    assert rig.shop.refused
    assert rig.settle() == []
