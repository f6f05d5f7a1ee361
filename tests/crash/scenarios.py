"""What is done to the workers; each scenario leaves some of them running, and `verify` judges what they know."""

from __future__ import annotations

import signal
import threading
from random import Random

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from local.kafka import Kafka
from tests.crash import log
from tests.crash.orders import PARTITIONS
from tests.crash.run import STEPS, Run
from tests.kit.eventually import eventually
from tests.kit.stack import Worker

EX_SOFTWARE = 70
LONGER_THAN_A_SESSION_S = 8
#: Small segments, and a cleaner that takes all but the last one.
COMPACTING = {"segment.bytes": "1048576", "segment.ms": "500", "min.cleanable.dirty.ratio": "0.001"}


def killed(run: Run, dice: Random, *disks: str) -> None:
    """Kill the only worker (kill -9) again and again, while it reads or while it starts; each disk is kept or lost."""
    for number, disk in enumerate(disks):
        worker = run.start_slow("one")
        if number % 2:
            threading.Event().wait(dice.uniform(1, 5))
        else:
            run.wait_for_events(worker, dice.randrange(run.events // 4))
        worker.kill()
        if disk == "lost":
            run.wipe("one")
    run.start("one")


def joined_left_and_died(run: Run, dice: Random) -> None:
    """Three workers that come and go; at the end all three are there."""
    part = run.events // 20
    one = run.start_slow("one")
    run.wait_for_events(one, dice.randrange(part))
    two = run.start_slow("two")
    run.wait_for_events(two, dice.randrange(part))
    three = run.start_slow("three")
    run.wait_for_events(three, dice.randrange(part))
    run.stop(two)
    threading.Event().wait(dice.uniform(0, 2))
    three.kill()
    if dice.random() < 0.5:
        run.wipe("three")
    two = run.start_slow("two")
    run.wait_for_events(two, dice.randrange(part))
    three = run.start_slow("three")
    threading.Event().wait(dice.uniform(0, 5))
    one.kill()
    run.wait_for_events(three, dice.randrange(part))
    run.start("one")


def two_at_once(run: Run, dice: Random) -> None:
    """The first start of all, two workers in the same moment with everything still to read; one dies, and returns."""
    run.start_slow("one")
    two = run.start_slow("two")
    run.wait_for_events(two, dice.randrange(run.events // 4))
    two.kill()
    threading.Event().wait(dice.uniform(0, 8))
    run.start("two")


def broker_restarted(run: Run, dice: Random, broker: Kafka, crash: bool) -> None:
    """The broker goes, in good order or not, and comes back, in the middle of everything."""
    one, two = run.start_slow("one"), run.start_slow("two")
    run.wait_for_events(dice.choice([one, two]), dice.randrange(run.events // 4))
    broker.kill() if crash else broker.stop()
    threading.Event().wait(dice.uniform(0, 5))
    broker.start()


def frozen(run: Run, dice: Random, guarded: bool, compacting: bool = False) -> None:
    """A worker stands still (SIGSTOP) until another one has read everything in its place, and wakes up (SIGCONT).

    It ends and says why; unguarded, when it had nothing in its hands, it may also find its way back.
    """
    one = run.start_slow("one", **({} if guarded else {"CRASH_UNGUARDED": "1"}))
    two = run.start_slow("two")
    run.wait_for_events(two, 1)
    if compacting:
        configure(run, "by_user", **COMPACTING)
    run.wait_for_events(one, one.events() + dice.randrange(run.events // 8))
    child = one.process.child
    child.send_signal(signal.SIGSTOP)
    threading.Event().wait(LONGER_THAN_A_SESSION_S)
    eventually(run.is_through, 120)
    starts = times_ready(one)
    child.send_signal(signal.SIGCONT)
    eventually(lambda: not one.process.is_running or (not guarded and times_ready(one) > starts), 30)
    if not one.process.is_running:
        assert child.returncode == (EX_SOFTWARE if guarded else 1)
        assert "has taken over" in one.process.tail(4_000)  # what aiokafka says of each lost batch comes after it
        run.start("one")


def times_ready(worker: Worker) -> int:
    """How often the worker was given partitions and went to work."""
    return worker.process.tail(10**6).count("Worker ready")


def compacted(run: Run) -> None:
    """The broker has forgotten all but the newest value of most keys, as after days; and all disks are lost."""
    run.wait_until_through()
    run.stop(*run.running())
    ends = sum(log.ends(run.kafka, run.changelog("by_user"), PARTITIONS))
    eventually(lambda: changelog_records(run) < 0.9 * ends, 60)
    for name in run.workers:
        run.wipe(name)
        run.start(name)


def refused(run: Run, dice: Random) -> None:
    """The broker takes no large values any more: the worker ends with the reason, and later another one goes on."""
    worker = run.start_slow("one")
    run.wait_for_events(worker, dice.randrange(run.events // 2))
    configure(run, "by_user", **{"max.message.bytes": "1000"})
    assert ended(worker) == 1
    assert "Kafka refused a batch of records" in worker.process.tail(400)
    nothing_is_committed_past_the_changelog(run)
    configure(run, "by_user", **{"max.message.bytes": "1048588"})
    run.start("one")


def raised(run: Run, dice: Random) -> None:
    """An agent raises in the middle of a step: the worker ends with an error, and the next one goes on."""
    worker = run.start_slow("one", CRASH_RAISE_AT=str(dice.randrange(1, STEPS // 2)))
    assert ended(worker) not in (0, None)
    assert "planted at step" in worker.process.tail(400)
    nothing_is_committed_past_the_changelog(run)
    run.start("one")


def ended(worker: Worker) -> int:
    """Wait for the end of a worker that nobody asked to go; its exit code."""
    return worker.process.child.wait(60)


def configure(run: Run, table: str, **settings: str) -> None:
    """Change settings of a table's changelog topic."""
    entries = [ConfigEntry(*one, incremental_operation=AlterConfigOpType.SET) for one in settings.items()]
    resource = ConfigResource("topic", run.changelog(table), incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": run.kafka})
    admin.incremental_alter_configs([resource])[resource].result()


def changelog_records(run: Run) -> int:
    """How many records the changelog of by_user has."""
    return sum(1 for one in range(PARTITIONS) for _ in log.records(run.kafka, run.changelog("by_user"), one))


def nothing_is_committed_past_the_changelog(run: Run) -> None:
    """What the group has committed of the orders is in the changelog."""
    key, changelog = b"\xffposition of " + run.orders.encode(), run.changelog("by_user")
    for partition, offset in enumerate(log.committed(run.kafka, run.name, run.orders, PARTITIONS)):
        durable = [int(value) for _, one, value in log.records(run.kafka, changelog, partition) if one == key]
        assert offset <= max(durable, default=0), f"partition {partition}: {offset} is committed"
