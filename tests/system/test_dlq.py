"""`lately dlq`: dead letters are found, sent again or put away, each once."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from app.kafka.admin import ensure_topics
from app.settings import Settings
from domain import dead_letters
from domain.errors import UnreadableEvent
from domain.partitioning import partition_of
from local.process import LocalProcess
from tests.kit.eventually import eventually
from tests.kit.makers import event, wire
from tests.kit.stack import PARTITIONS, PYTHON, ROOT, Servers, Stack, Worker

#: The partition of the user ann.
HOME = partition_of(b"ann", PARTITIONS)


@pytest.fixture
def worker(stack: Stack) -> Worker:
    """A worker of a shop, whose topics are there."""
    stack.create_orders()
    return stack.worker().start().wait_ready()


@pytest.fixture(scope="module")
def idle_stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The topics of a shop, for tests that change nothing."""
    with Stack(servers, tmp_path_factory.mktemp("dlq")) as stack:
        asyncio.run(ensure_topics(Settings.from_env(stack.env)))
        yield stack


def dlq(stack: Stack, *words: str) -> tuple[int, list[str]]:
    """Exit code and lines of `lately dlq …`."""
    process = stack.lately("dlq", *words)
    return process.child.returncode, process.tail(1_000).splitlines()


def letters(stack: Stack, *words: str) -> list[dict]:
    """What `lately dlq list` shows."""
    code, lines = dlq(stack, "list", "--json", *words)
    assert code == 0, lines
    return [json.loads(line) for line in lines]


def bury(stack: Stack, topic: str, key: bytes, value: bytes, reason: str = "unknown-type") -> None:
    """A dead letter as a version wrote it that could not read the record."""
    producer = Producer({"bootstrap.servers": stack.servers.kafka})
    headers = dead_letters.build_headers(
        UnreadableEvent(reason, "not known here"), topic=topic, partition=HOME, offset=7
    )
    producer.produce(stack.topic("orders-dead"), value, key, partition=1, headers=headers)
    assert producer.flush(20) == 0


def shown_open(worker: Worker) -> dict[str, float]:
    """Reason -> open dead letters, and the age of the oldest, as a worker counts them."""
    lines = [line.rpartition(" ") for line in worker.get("/metrics").text.splitlines()]
    return {name.removeprefix("lately_dlq_open_"): float(value)
            for name, _, value in lines if name.startswith("lately_dlq_open_")}  # fmt: skip


def test_dead_letters_are_listed_and_shown_with_reason_and_origin(stack: Stack, worker: Worker):
    assert letters(stack) == []
    assert dlq(stack, "list") == (0, ["0 dead letters"])
    anyones = Producer({"bootstrap.servers": stack.servers.kafka})
    anyones.produce(stack.topic("orders-dead"), b"", b"ann", partition=1, headers=[("lately.settled", b"all of them")])
    assert anyones.flush(20) == 0
    stack.publish("orders", (b"ann", b"no event"), (b"ann", b"\xff{"), wire(event(user_id="ann")))
    found = eventually(lambda: len(seen := letters(stack)) == 2 and seen, within=20)
    assert [one["value"] for one in found] == ["no event", "\\xff{"]
    first = found[0]
    assert (first["key"], first["reason"], first["topic"]) == ("ann", "malformed-json", stack.topic("orders"))
    code, lines = dlq(stack, "show", first["id"])
    assert code == 0
    assert "value       no event" in lines
    assert letters(stack, "--reason", "other") == []


def test_a_retried_letter_takes_effect_once_however_often_it_is_retried(stack: Stack, worker: Worker):
    key, value = wire(event(user_id="ann", product_name="Phone"))
    bury(stack, stack.topic("orders"), key, value)
    (one,) = letters(stack)
    assert dlq(stack, "retry", "--all", "--dry-run") == (0, [f"{one['id']:12}would be retried"])
    assert worker.purchases("ann") == []
    assert len(letters(stack)) == 1
    command = [PYTHON, "-m", "app", "dlq", "retry", "--all"]
    at_once = [LocalProcess(f"at-once-{n}", command, stack.folder, env=stack.env, cwd=ROOT) for n in range(3)]
    stack.processes += at_once
    for process in at_once:
        process.start()
    codes = {process.child.wait(60) for process in at_once}
    assert 0 in codes
    assert codes <= {0, 1}
    assert letters(stack) == []
    assert dlq(stack, "retry", "--all") == (0, [])
    eventually(lambda: len(worker.purchases("ann")) == 1)
    assert [(found.key(), found.value(), found.partition()) for found in stack.records("orders")] == [
        (key, value, HOME)
    ]


def test_what_still_cannot_be_read_comes_back_and_what_is_dropped_does_not(stack: Stack, worker: Worker):
    stack.publish("orders", (b"ann", b"no event"))
    (one,) = eventually(lambda: letters(stack), within=20)
    assert dlq(stack, "retry", one["id"])[0] == 0
    (again,) = eventually(lambda: [found for found in letters(stack) if found["id"] != one["id"]], within=20)
    assert (again["key"], again["value"]) == ("ann", "no event")
    counted = 'records{reason="malformed-json"}'
    eventually(lambda: shown_open(worker)[counted] == 1, within=20)
    assert dlq(stack, "drop", "--reason", "malformed-json") == (0, [f"{again['id']:12}dropped"])
    assert letters(stack) == []
    eventually(lambda: shown_open(worker)[counted] == 0, within=20)
    assert math.isnan(shown_open(worker)["oldest_seconds"])
    assert "No open dead letters." in worker.get("/operator").text
    # Those that are open are counted after a restart too, and by whoever buried them.
    bury(stack, "purchase_outbox", b"ann", b"{}")
    bury(stack, "purchase_outbox", b"ann", b"{}", "broken-rule")
    worker.stop()
    worker.start()
    worker.wait_ready()

    def counted_again() -> None:
        found = shown_open(worker)
        assert 0 <= found.pop("oldest_seconds") < 60
        assert found == {counted: 0, 'records{reason="unknown-type"}': 1, 'records{reason="broken-rule"}': 1}

    eventually(counted_again, within=20)
    assert "broken-rule" in worker.get("/operator").text


def test_a_row_of_the_shop_cannot_be_retried_and_says_what_to_do(stack: Stack, worker: Worker):
    bury(stack, "purchase_outbox", b"ann", b"{}")
    code, lines = dlq(stack, "retry", "--all")
    assert code == 1
    assert "correct the row" in lines[0]
    assert len(letters(stack)) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("retry",), "select dead letters"),
        (("drop", "0@1", "--all"), "exclude each other"),
        (("show", "0@99"), "no dead letter 0@99"),
        (("drop", "nonsense"), "no dead letter nonsense"),
    ],
)
def test_a_wrong_wish_is_refused_and_changes_nothing(idle_stack: Stack, words: tuple, said: str):
    code, lines = dlq(idle_stack, *words)
    assert code == 2
    assert said in "".join(lines)


def test_without_kafka_it_says_so(stack: Stack):
    stack.env["LATELY_KAFKA"] = "127.0.0.1:1"
    code, lines = dlq(stack, "list")
    assert code == 75
    assert "no answer from Kafka" in lines[-1]
