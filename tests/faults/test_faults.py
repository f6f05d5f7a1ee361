"""What a user sees of each fault, and that nothing is lost or doubled; the table in docs/operations.md links here.

A shop trades all the while, and after each fault every list of every user and every product's totals are compared
with SQL. What takes longer than a few seconds has the mark `faults`: `make faults`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.faults.clock import HOUR, Clock
from tests.faults.disk import SmallDisk
from tests.faults.fault_actions import damage, frozen, last_for
from tests.faults.fault_setup import SESSION_S, Rig
from tests.faults.shop import USERS
from tests.kit.eventually import eventually
from tests.kit.stack import Worker

#: Longer than the group waits for a member, and two heartbeats more.
LONGER_THAN_A_SESSION_S = SESSION_S + 2

long = pytest.mark.faults


def statuses(worker: Worker) -> dict[str, int]:
    """What the worker answers for some users of each partition."""
    return {user: worker.get(f"/v1/users/{quote(user)}/purchases").status for user in USERS[:12]}


# -- the broker


@pytest.mark.parametrize("seconds", [pytest.param(2, marks=pytest.mark.slow), pytest.param(30, marks=long)])
def test_a_frozen_broker_holds_everything_up_and_nothing_is_lost(rig: Rig, seconds: int):
    with rig.shop.trading():
        with frozen(rig.broker.process.pid):
            last_for(seconds)
            for worker in rig.workers.values():
                assert worker.get("/v1/users/user-1/purchases").status == 200
        bought = rig.shop.committed
        eventually(lambda: rig.shop.committed > bought + 20)
    rig.settle()


@long
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_broker_that_is_restarted_is_waited_for(rig: Rig, end: str):
    with rig.shop.trading():
        getattr(rig.broker, end)()
        last_for(3)
        rig.broker.start()
    assert rig.settle() == []


# -- the network


@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        ("cut", 1),
        pytest.param("cut", LONGER_THAN_A_SESSION_S, marks=long),
        pytest.param("silence", LONGER_THAN_A_SESSION_S, marks=long),
    ],
)
def test_a_worker_that_is_cut_off_from_kafka_harms_nobody(rig: Rig, how: str, seconds: int):
    with rig.shop.trading():
        getattr(rig.kafka_wire, how)()
        last_for(seconds)
        rig.kafka_wire.mend()
    ends = rig.settle()
    for end in ends:
        assert (end.name, end.code) == ("one", 1)
        assert "lately: another worker has taken over" in end.words.splitlines()[-1]
    assert not (ends and seconds < SESSION_S)


@pytest.mark.parametrize("how", [pytest.param("cut", marks=long), "silence"])
def test_workers_that_do_not_reach_each_other_answer_from_mysql_or_503_and_never_wrong(rig: Rig, how: str):
    getattr(rig.web_wire, how)()
    roles = set()
    for user in USERS[:12]:
        answer = rig.workers["one"].get(f"/v1/users/{quote(user)}/purchases")
        if answer.status == 503:
            assert (answer.json["code"], answer.headers["Retry-After"]) == ("owner-away", "1")
            roles.add("away")
        else:
            roles.add(answer.json["meta"]["role"])
            names = [(one["order_id"], one["product_name"]) for one in answer.json["purchases"]]
            assert names == [row[:2] for row in rig.stack.truth(user)]
    assert roles >= {"active", "source"}
    assert roles <= {"active", "source", "away"}
    assert set(statuses(rig.workers["two"]).values()) == {200}
    rig.web_wire.mend()
    assert rig.settle() == []


# -- the shop's database


@pytest.mark.parametrize("how", ["cut", pytest.param("silence", marks=long)])
def test_without_the_database_answers_go_on_and_changes_wait_in_the_outbox(rig: Rig, how: str):
    with rig.shop.trading():
        getattr(rig.mysql_wire, how)()
        eventually(lambda: not rig.stack.outbox_is_empty())
        last_for(2)
        for worker in rig.workers.values():
            assert set(statuses(worker).values()) == {200}
        rig.mysql_wire.mend()
    assert rig.settle() == []
    assert rig.source.is_running


# -- the disk


@long
def test_a_full_disk_under_the_tables_loses_nothing(rig: Rig, tmp_path: Path):
    two = rig.workers["two"]
    with SmallDisk(tmp_path / "disk", mib=32) as disk, moved(rig, "two", LATELY_DATA_DIR=str(disk.path / "two")):
        disk.fill()
        with rig.shop.trading():
            last_for(1)
        assert rig.settle() == []
        # RocksDB takes a second for each store that it cannot write.
        assert rig.stop("two", within=20) == [0]
        assert "Traceback" not in two.process.tail(10**4)
        two.start()
        eventually(lambda: not two.process.is_running, within=30)
        assert two.process.child.returncode == 1
        assert "No space left on device" in two.process.tail(1)
        assert "repair it or free space, then start the worker again; no data is lost" in two.process.tail(1)
        disk.free()
        assert [end.name for end in rig.settle()] == ["two"]


def test_damaged_files_of_a_table_are_made_anew(rig: Rig):
    one = rig.workers["one"]
    with rig.shop.trading():
        assert rig.stop("one") == [0]
    assert damage(one.folder, "by_user")
    with rig.shop.trading():
        one.start()
    ends = rig.settle()
    assert all("are damaged" in end.words.splitlines()[-1] for end in ends)
    # Files of partitions that another worker has by now are read by nobody; the lists are compared in any case.
    assert not ends or "rebuilt from their changelog" in one.process.log.read_text()


# -- the clock


@long
def test_a_worker_whose_clock_jumps_stays_exact_and_one_that_is_hours_ahead_ends(rig: Rig, tmp_path: Path):
    clock = Clock(tmp_path)
    with moved(rig, "one", **clock.env):
        for seconds in (HOUR / 2, -2 * HOUR):
            with rig.shop.trading():
                clock.put(seconds)
                last_for(1)
            assert rig.settle() == []
        with rig.shop.trading():
            clock.put(3 * HOUR)
            eventually(lambda: bool(rig.ended()), within=30)
        [end] = rig.ended()
        assert (end.name, end.code) == ("one", 1)
        assert "correct the clock of this machine" in end.words.splitlines()[-1]
        clock.put(0)
        rig.settle()


# -- the worker


def test_a_worker_told_to_stop_under_load_commits_what_it_did_within_10_s(rig: Rig):
    with rig.shop.trading(per_s=500):
        eventually(lambda: rig.workers["two"].events() > 0)
        assert rig.stop("two") == [0]
        assert "Traceback" not in rig.workers["two"].process.tail(10**4)
        rig.workers["two"].start()
    rig.settle()


@contextmanager
def moved(rig: Rig, name: str, **env: str) -> Iterator[None]:
    """Let a worker run with other settings meanwhile."""
    worker = rig.workers[name]
    before = dict(worker.env)
    rig.stop(name)
    worker.env.update(env)
    worker.start()
    try:
        rig.wait_whole()
        yield
    finally:
        worker.kill()
        for setting in env:
            del worker.env[setting]
        worker.env.update(before)
        worker.start()
