"""A worker, the source and the commands survive what strangers write to the topics."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Producer

from chunks.decompress import MAX_EXPANDED_BYTES
from domain.partitioning import partition_of
from tests.kit.batches import PLAIN_NAME, ZSTD, build, with_bad_names, write_raw
from tests.kit.eventually import eventually
from tests.kit.makers import event, wire
from tests.kit.stack import Stack, Worker

pytestmark = pytest.mark.partitions(4)

HOME = partition_of(b"ann", 4)
NOW = "2026-01-31 12:00:00"
#: The size of each of two records of a small batch.
BOMB_BYTES = 2**28


def write(stack: Stack, topic: str, data: bytes, partition: int = HOME) -> None:
    asyncio.run(write_raw(stack.servers.kafka, stack.topic(topic), data, partition))


def bad_names(*values: bytes) -> bytes:
    return with_bad_names(build([(b"ann", value, [(PLAIN_NAME, b"x")]) for value in values]))


def dead_letters(stack: Stack) -> list[dict]:
    process = stack.lately("dlq", "list", "--json")
    assert process.child.returncode == 0, process.tail(50)
    # The log names the record with the damaged header.
    return [json.loads(line) for line in process.tail(1_000).splitlines() if line.startswith("{")]


def peak_memory(worker: Worker) -> int:
    """The most memory that the worker has had, in bytes."""
    status = Path(f"/proc/{worker.process.child.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def test_no_foreign_record_ends_a_worker_or_takes_its_memory(stack: Stack):
    stack.create_orders()
    worker = stack.worker().start().wait_ready()
    write(stack, "orders", bad_names(wire(event(order_id="o-1", user_id="ann"))[1]))
    write(stack, "orders-dead", bad_names(b"x"), 1)
    write(stack, "source-state", bad_names(b"x"), 0)
    eventually(lambda: worker.events() == 1)
    before = peak_memory(worker)
    write(stack, "orders", build([(b"ann", bytes(BOMB_BYTES), [])] * 2, ZSTD))
    write(stack, "orders", build([(b"ann", wire(event(order_id="o-2", user_id="ann", version=2))[1], [])]))
    eventually(lambda: worker.events() == 4)  # dead letters count too
    # The limit, what zstd needs for its window, and what a young worker needs anyway.
    assert peak_memory(worker) < before + 3 * MAX_EXPANDED_BYTES
    assert worker.get("/readyz").status == 200
    letters = dead_letters(stack)
    assert [letter["reason"] for letter in letters].count("damaged-record") == 2
    assert all(
        "expands to more than" in letter["message"] for letter in letters if letter["reason"] == "damaged-record"
    )
    process = stack.lately("dlq", "retry", "--reason", "damaged-record")
    assert "drop this" in process.tail(50)
    worker.stop()
    again = stack.worker().start().wait_ready()
    eventually(lambda: again.get("/v1/users/ann/purchases").status == 200)


def test_an_order_behind_a_foreign_transaction_is_found_there(stack: Stack):
    stack.create_orders()
    stack.setup()
    worker = stack.worker().start().wait_ready()
    stranger = Producer({"bootstrap.servers": stack.servers.kafka, "transactional.id": uuid.uuid4().hex})
    stranger.init_transactions(30)
    stranger.begin_transaction()
    stranger.produce(stack.topic("orders"), b"x", b"ann", partition=HOME)
    assert stranger.flush(20) == 0
    source = stack.source()
    stack.insert(("o-1", "Phone", "ann", "5.00", NOW, "card"))

    def diagnosis() -> str:
        process = stack.lately("trace", "o-1", "--json", LATELY_WEB_PORT=str(worker.port))
        return str(json.loads(process.tail(50).splitlines()[-1])["diagnosis"])

    eventually(lambda: "in Kafka, behind an open transaction since offset" in diagnosis(), within=40)
    stranger.abort_transaction(30)
    eventually(lambda: diagnosis().startswith("visible"), within=40)
    source.stop()
