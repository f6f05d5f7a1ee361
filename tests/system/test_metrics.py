"""What Prometheus is told is what happened."""

from __future__ import annotations

import pytest

from tests.kit.eventually import eventually
from tests.kit.orders import buy
from tests.kit.stack import Stack, Worker

ROUTE = "/v1/users/{user_id}/purchases"


def told(worker: Worker) -> dict[str, float]:
    """All samples of Lately: name with labels -> value."""
    lines = [line.rpartition(" ") for line in worker.get("/metrics").text.splitlines() if line.startswith("lately_")]
    return {name: float(value) for name, _, value in lines}


@pytest.mark.cost(15)
def test_answers_freshness_repeated_events_keys_and_assignments_are_counted(stack: Stack):
    stack.create_orders()
    stack.setup()
    stack.source()
    worker = stack.worker().start().wait_ready()
    before = told(worker)
    assert before["lately_freshness_seconds_count"] == before["lately_events_duplicate_total"] == 0
    assert before["lately_rebalances_total"] >= 1

    buy(stack, ("ann", "Phone"))
    eventually(lambda: worker.purchases("ann"), within=20)
    found = told(worker)
    eventually(lambda: told(worker)["lately_freshness_seconds_count"] == 1)
    found = told(worker)
    assert 0 < found["lately_freshness_seconds_sum"] < 30
    eventually(lambda: told(worker).get('lately_table_keys{table="by_user"}', 0) >= 1, within=20)

    timed = f'lately_http_request_duration_seconds_count{{method="GET",route="{ROUTE}",status="%s"}}'
    asked = found[timed % 200]
    for path in ("/v1/users/ann/purchases", "/v1/users/ann/purchases", "/v1/users/ann/purchases?limit=x"):
        worker.get(path)
    found = told(worker)
    assert (found[timed % 200], found[timed % 400]) == (asked + 2, 1)

    (record,) = stack.records("orders")
    stack.publish("orders", (record.key(), record.value()))
    eventually(lambda: told(worker)["lately_events_duplicate_total"] == 1, within=20)
    assert len(worker.purchases("ann")) == 1
