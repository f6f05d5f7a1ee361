"""Values of the shop's columns: a price counts by its value, and what cannot be shown any more is taken back."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from tests.kit.commands import verify
from tests.kit.eventually import eventually
from tests.kit.stack import Stack, Worker

pytestmark = pytest.mark.both_databases

TABLE = """CREATE TABLE orders (
  order_id VARCHAR(64) NOT NULL, product_name VARCHAR(100) NOT NULL, user_id VARCHAR(64) NOT NULL,
  price DECIMAL(38,16) NULL, ordered_at TIMESTAMP(6) NULL, payment_method VARCHAR(400) NULL,
  PRIMARY KEY (order_id, product_name)
) ENGINE=InnoDB"""
PRICE_RULE = "price must be a decimal number >= 0 with at most 18 digits before the point and 10 after it"
TIME_RULE = "ordered_at must be a date and time in the years 1 to 9999 of UTC"


def execute(stack: Stack, statement: str) -> None:
    """Run a statement of a shop that accepts all values."""
    with closing(stack.connect()) as shop, closing(shop.cursor()) as cursor:
        cursor.execute("SET sql_mode = ''")
        cursor.execute(statement)
        shop.commit()


def shown(worker: Worker, **parameters: str) -> dict[str, str]:
    """Order -> price of ann's purchases."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    answer = worker.get(f"/v1/users/ann/purchases?{query}")
    assert answer.status == 200, answer
    return {purchase["order_id"]: purchase["price"] for purchase in answer.json["purchases"]}


def diagnosis(worker: Worker, order: str) -> str:
    """What the trace says of an order."""
    return worker.get(f"/v1/orders/{order}/trace").json["diagnosis"]


def assert_shown(worker: Worker, expected: dict[str, str]) -> None:
    """The table and MySQL show these purchases of ann's, and the product has their total."""
    eventually(lambda: shown(worker) == expected, within=20)
    assert shown(worker, consistency="source") == expected
    cents = sum(round(float(price) * 100) for price in expected.values())
    eventually(lambda: worker.totals("Phone") == (len(expected), f"{cents / 100:.2f}"), within=20)


@pytest.mark.slow_on("mariadb")
@pytest.mark.cost(30)
def test_a_purchase_is_shown_while_its_row_obeys_the_rules_and_only_then(stack: Stack):
    stack.env["LATELY_FALLBACK_PER_S"] = "100"
    stack.execute(TABLE)
    names = "INSERT INTO orders VALUES"
    execute(stack, f"{names} ('o1', 'Phone', 'ann', 19.9, NOW(6), 'card'), ('o2', 'Phone', 'ann', -5, NOW(6), 'card')")
    stack.setup()
    worker = stack.worker(LATELY_SIMILAR="0").start()
    stack.source()
    worker.wait_ready()
    assert_shown(worker, {"o1": "19.90"})
    assert f"breaks a rule: {PRICE_RULE}, taken back" in diagnosis(worker, "o2")

    # New rows, and changes of each kind.
    execute(stack, f"{names} ('o3', 'Phone', 'ann', 1, NOW(6), 'card'), ('o4', 'Phone', 'ann', 2, 0, 'card')")
    execute(stack, f"{names} ('o5', 'Phone', 'ann', 4, NOW(6), 'card'), ('o6', 'Phone', 'ann', 8, NOW(6), 'card')")
    assert_shown(worker, {"o1": "19.90", "o3": "1.00", "o5": "4.00", "o6": "8.00"})
    execute(stack, "UPDATE orders SET price = -5 WHERE order_id = 'o1'")
    execute(stack, "UPDATE orders SET price = NULL WHERE order_id = 'o3'")
    execute(stack, "UPDATE orders SET ordered_at = '0000-00-00 00:00:00' WHERE order_id = 'o5'")
    execute(stack, "UPDATE orders SET payment_method = REPEAT('x', 300) WHERE order_id = 'o6'")
    assert_shown(worker, {})
    assert f"breaks a rule: {PRICE_RULE}, taken back by version" in diagnosis(worker, "o1")
    assert f"breaks a rule: {TIME_RULE}, taken back by version" in diagnosis(worker, "o5")
    code, differences, outcome = verify(stack, worker)
    assert (code, differences, outcome["rows"], outcome["left_out"]) == (0, [], 6, 6)
    assert outcome["left_out_rules"][TIME_RULE] == 2
    code, differences, outcome = verify(stack, worker, "--user", "ann")
    assert (code, differences, outcome["left_out"]) == (0, [], 6)
    replayed = stack.lately("replay", "--dry-run", "--json", "--worker", f"http://127.0.0.1:{worker.port}")
    assert replayed.child.returncode == 0, replayed.tail()

    # A snapshot agrees, and what an event shows in spite of its row is taken back by a repair.
    assert stack.lately("source", "snapshot", "--all").child.returncode == 0
    stale = max(
        (event for event in stack.events() if event["data"]["order_id"] == "o1"),
        key=lambda event: event["data"]["version"],
    )
    stale["type"], stale["data"]["price"] = "order.changed", "9.00"
    stale["data"]["version"] += 1
    stack.publish("orders", (b"ann", json.dumps(stale).encode()))
    eventually(lambda: shown(worker) == {"o1": "9.00"}, within=20)
    code, differences, outcome = verify(stack, worker, "--repair")
    assert (code, [one["kind"] for one in differences], outcome["repaired"]) == (0, ["extra"], 1)
    assert_shown(worker, {})

    # A corrected row is shown again.
    execute(stack, "UPDATE orders SET price = 7, ordered_at = NOW(6), payment_method = 'card'")
    assert_shown(worker, {f"o{number}": "7.00" for number in range(1, 7)})
    assert diagnosis(worker, "o1").startswith("visible")
    assert verify(stack, worker)[0] == 0
    execute(stack, "UPDATE orders SET price = -5")
    execute(stack, "DELETE FROM orders")
    assert_shown(worker, {})
    assert diagnosis(worker, "o1").startswith("cancelled: removed by version")
