"""`lately doctor` names what is wrong, and what to do about it."""

from __future__ import annotations

import json

import pytest

from tests.kit.eventually import eventually
from tests.kit.stack import Stack


def doctor(stack: Stack, **env: str) -> tuple[int, dict[str, str], list[dict]]:
    """Exit code, name -> result, and all findings."""
    process = stack.lately("doctor", "--json", **env)
    said = json.loads(next(line for line in process.tail(1_000).splitlines() if line.startswith("{")))
    assert said["ok"] is (process.child.returncode == 0)
    assert all(one["fix"] for one in said["findings"] if one["result"] != "ok")
    return process.child.returncode, {one["name"]: one["result"] for one in said["findings"]}, said["findings"]


@pytest.mark.both_databases
@pytest.mark.slow_on("mariadb")
@pytest.mark.cost(27)
def test_a_shop_is_led_from_nothing_to_healthy(stack: Stack):
    stack.create_orders()
    code, results, _ = doctor(stack)
    assert code == 1
    assert results["source"] == results["worker"] == "failed"
    assert results["kafka"] == "warning"
    stack.setup()
    stack.source()
    worker = stack.worker().start().wait_ready()
    port = {"LATELY_WEB_PORT": str(worker.port)}

    def healthy() -> None:
        code, results, findings = doctor(stack, **port)
        assert code == 0, findings
        assert results["kafka"] == results["source"] == results["worker"] == results["clocks"] == "ok"
        assert results["verified"] == "warning"

    eventually(healthy, within=30)
    stack.publish("orders", (b"ann", b"no event"))
    eventually(lambda: doctor(stack, **port)[1]["dead letters"] == "warning", within=20)
    assert stack.lately("verify", **port).child.returncode == 0
    assert doctor(stack, **port)[1]["verified"] == "ok"


def test_what_is_away_is_a_finding_and_the_rest_is_looked_at_all_the_same(stack: Stack):
    code, results, findings = doctor(stack, LATELY_KAFKA="127.0.0.1:1", LATELY_MYSQL_PORT="1")
    assert code == 1
    assert results["kafka"] == results["mysql"] == "failed"
    assert results["libraries"] == "ok"
    assert any("LATELY_KAFKA" in one["fix"] for one in findings)
