"""A worker that is stuck says why and ends with 70; one that works, waits or is told to go on never does."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from local.kafka import start_kafka
from tests.kit.eventually import eventually
from tests.kit.orders import CUSTOMERS, place_orders, publish_events, start_shop
from tests.kit.stack import PYTHON, Stack, Worker

#: Each of these tests waits for several timeouts.
pytestmark = pytest.mark.slow

HANGING = [PYTHON, "-m", "faust", "-A", "tests.kit.hanging", "worker", "-l", "info"]
#: Seconds, much less than anybody would set.
SOON = {"LATELY_STUCK_S": "4", "LATELY_STUCK_EXIT_S": "9", "LATELY_AWAY_S": "4"}
REASONS = ("no-progress", "recovery-stalled", "kafka-away", "source-silent")


def stuck(worker: Worker) -> dict[str, float]:
    """What /metrics says of each reason."""
    lines = [line for line in worker.get("/metrics").text.splitlines() if line.startswith("lately_stuck{")]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


def assert_says(worker: Worker, reason: str, words: str) -> None:
    """The worker is not ready for this reason and no other."""
    answer = worker.get("/readyz")
    assert (answer.status, answer.json.get("code"), answer.json.get("reasons")) == (503, reason, [reason]), answer
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert words in answer.json["detail"]
    assert stuck(worker) == {one: float(one == reason) for one in REASONS}


def assert_ends(worker: Worker, last_line: str) -> None:
    eventually(lambda: not worker.process.is_running, within=30)
    assert worker.process.child.returncode == 70, worker.process.tail()
    said = worker.process.tail(1)
    assert "[CRITICAL] lately: stuck, " in said, said
    assert last_line in said


@pytest.mark.cost(45)
def test_what_hangs_is_named_and_ends_with_70_and_a_busy_worker_is_not_affected(stack: Stack):
    busy = start_shop(stack, LATELY_AWAY_EXIT_S="9", **SOON)
    agent, loop, recovery = (
        stack.worker(hang, HANGING, HANG=hang, LATELY_ID=f"{stack.name}-{hang}", **SOON).start()
        for hang in ("agent", "loop", "recovery")
    )
    agent.wait_ready(), loop.wait_ready()
    eventually(
        lambda: assert_says(recovery, "recovery-stalled", "the recovery of the tables has made no progress at 0 of 0"),
        60,
    )
    assert_ends(recovery, "recovery-stalled: the recovery of the tables has made no progress at 0 of 0 records for")

    stopping = threading.Event()
    with ThreadPoolExecutor() as shop:
        trading = shop.submit(place_orders, stack, 30_000, stopping=stopping)
        try:
            stack.insert(("o-hang", "Phone", "hang", "1.00", "2026-01-31", None))
            eventually(lambda: assert_says(agent, "no-progress", f"{stack.topic('orders')}["), within=30)
            assert_ends(agent, " records pending) for")
            assert_ends(
                loop, "no-progress: an agent or a view has blocked the event loop for 9 s: start this worker again"
            )
            assert busy.get("/readyz").status == 200
            assert stuck(busy) == dict.fromkeys(REASONS, 0.0)
        finally:
            stopping.set()
        trading.result()
    eventually(stack.outbox_is_empty, within=60)
    eventually(lambda: stack.assert_equal_to_sql(busy, [*CUSTOMERS, "hang"]), within=60)
    assert "stuck" not in busy.process.tail(10_000)

    # Without the fault the same worker goes on where it stood.
    mended = stack.worker("agent", LATELY_ID=f"{stack.name}-agent", **SOON).start().wait_ready()
    eventually(lambda: mended.purchases("hang") == stack.truth("hang"), within=60)

    source = next(one for one in stack.processes if one.name.startswith("source"))
    os.kill(source.pid, signal.SIGSTOP)
    try:
        eventually(lambda: assert_says(busy, "source-silent", "no status from any `lately source`"), within=30)
        assert busy.purchases("hang") == stack.truth("hang")
        assert_ends(busy, "source-silent: no status from any `lately source` for")
        eventually(lambda: assert_says(mended, "source-silent", "no status"), within=5)
    finally:
        os.kill(source.pid, signal.SIGCONT)
    eventually(lambda: mended.get("/readyz").status == 200, within=20)


@pytest.mark.cost(48)
def test_a_worker_waits_for_a_broker_that_is_silent_and_when_told_to_stop_ends_by_itself(artifacts, servers, tmp_path):
    with start_kafka(artifacts, tmp_path / "broker") as broker:
        with Stack(dataclasses.replace(servers, kafka=broker.address), tmp_path) as stack:
            worker = start_shop(stack, **SOON)
            os.kill(broker.process.pid, signal.SIGSTOP)
            try:
                eventually(lambda: assert_says(worker, "kafka-away", f"no answer from {broker.address}"), within=40)
                assert worker.process.is_running
            finally:
                os.kill(broker.process.pid, signal.SIGCONT)
            eventually(lambda: worker.get("/readyz").status == 200, within=60)
            place_orders(stack, 60)
            eventually(lambda: stack.assert_equal_to_sql(worker, CUSTOMERS), within=60)

            # Once more, in the middle of a transaction.
            stopping = threading.Event()
            with ThreadPoolExecutor() as pool:
                feeding = pool.submit(publish_events, stack, stopping)
                try:
                    eventually(lambda: worker.events() > 2_000, within=60)
                    os.kill(broker.process.pid, signal.SIGSTOP)
                    worker.process.child.send_signal(signal.SIGTERM)
                    assert worker.process.child.wait(45) == 1, worker.process.tail()
                    assert "Kafka does not answer" in worker.process.tail()
                finally:
                    stopping.set()
                    os.kill(broker.process.pid, signal.SIGCONT)
                feeding.result()
