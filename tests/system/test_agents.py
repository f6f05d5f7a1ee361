"""Agents in processes of their own: each goes on where the tables end, none disturbs another."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from local.process import find_free_port
from tests.kit.co_purchases import also_bought
from tests.kit.commands import FAULTY_WORKER, FAUST_WORKER, run_to_end
from tests.kit.eventually import eventually
from tests.kit.makers import event, wire
from tests.kit.orders import CUSTOMERS, place_orders, start_shop
from tests.kit.stack import ROOT, Stack, Worker
from tests.kit.streams import open_stream

pytestmark = pytest.mark.partitions(4)

#: The routes that read the tables of each agent.
USER_ROUTES = (
    "/v1/users/user-1/purchases", "/v1/purchases?user_id=user-1&user_id=user-2", "/v1/users/user-1/home",
    "/users/user-1", "/v1/orders/o00001/trace", "/v1/tables/by_user/0", "/v1/tables/product_partials/0/digest",
)  # fmt: skip
PRODUCT_ROUTES = (
    "/v1/products/Phone%201",
    "/products/Phone%201",
    "/products?name=Phone%201",
    "/v1/tables/by_product/0",
)
PAIR_ROUTES = (
    "/v1/products/Phone%201/similar", "/v1/products/Phone%201/purchases", "/v1/products/popular",
    "/v1/tables/baskets/0",
)  # fmt: skip

RECOMMENDATION_ROUTES = ("/v1/users/user-1/home", "/v1/users/user-1/recommendations?exclude=none")


def assert_elsewhere(worker: Worker, path: str, agent: str) -> None:
    answer = worker.get(path)
    assert (answer.status, answer.json["code"]) == (421, "agent-elsewhere"), answer
    assert f"does not run the agent {agent}" in answer.json["detail"]
    assert "LATELY_AGENTS" in answer.json["detail"]


def neighbours(stack: Stack, product: str) -> dict[str, int]:
    """What SQL says: with each other product, how many users have both."""
    rows = stack.select(
        "SELECT other.product_name, COUNT(DISTINCT other.user_id) FROM orders JOIN orders other USING (user_id)"
        " WHERE orders.product_name = %s AND other.product_name <> %s GROUP BY other.product_name",
        (product, product),
    )
    return dict(rows)


def assert_all_equal_to_sql(stack: Stack, users: Worker, products: Worker, pairs: Worker) -> None:
    for user in CUSTOMERS:
        assert users.purchases(user) == stack.truth(user), user
    for product, totals in stack.product_truth().items():
        assert products.totals(product) == totals, product
    assert also_bought(pairs, "Phone 1") == neighbours(stack, "Phone 1")


@pytest.mark.cost(32)
def test_agents_move_to_processes_of_their_own_and_back_and_nothing_is_lost_or_counted_twice(stack: Stack):
    whole = start_shop(stack)
    place_orders(stack, 120)
    eventually(lambda: assert_all_equal_to_sql(stack, whole, whole, whole), within=60)
    eventually(lambda: stack.committed("orders") == 120, within=10)
    whole.stop()

    users, products, _ = workers = [
        stack.worker(name, LATELY_AGENTS=agents).start()
        for name, agents in (("users", "by_user"), ("products", "by_product"), ("pairs", "similar,baskets"))
    ]
    for worker in workers:
        worker.wait_ready()
    # Those who do the same in another group are waited for, as if they had been killed.
    second = stack.worker("second").start()
    place_orders(stack, 60, first=120)
    eventually(lambda: assert_all_equal_to_sql(stack, *workers), within=60)
    assert users.events() == 60
    assert stack.committed("orders") == 120, "the group of all agents is left as it was"

    # Every process answers for the tables of all of them, also lists from the tables of two of them.
    for worker in workers:
        eventually(partial(assert_all_equal_to_sql, stack, worker, worker, worker))
        for path in (*USER_ROUTES, *PRODUCT_ROUTES, *PAIR_ROUTES):
            answer = worker.get(path)
            assert answer.status == 200, (worker.folder, path, answer)
        with open_stream(worker, "user-1") as live:
            assert live.event()[1]["meta"]["worker"] == f"http://127.0.0.1:{users.port}"
        lists = [worker.get(path).json["recommendations"] for path in RECOMMENDATION_ROUTES]
        expected = [users.get(path).json["recommendations"] for path in RECOMMENDATION_ROUTES]
        assert lists == expected
        assert all(lists)
    digests = stack.lately("tables", "digest", "--worker", f"http://127.0.0.1:{products.port}")
    assert digests.child.returncode == 0, digests.tail()

    # One of them is changed and comes back; the others do not even have a rebalance.
    products.stop()
    place_orders(stack, 60, first=180)
    products.start().wait_ready()
    eventually(lambda: assert_all_equal_to_sql(stack, *workers), within=60)
    assert [one.process.tail(10_000).count("Worker ready") for one in workers] == [1, 1, 1]
    assert users.events() == 120

    eventually(lambda: not second.process.is_running, within=30)
    assert second.process.child.returncode == 2
    assert "would run twice: 1 workers run" in second.process.tail(1)
    for worker in workers:
        worker.stop()
    whole.start().wait_ready()
    place_orders(stack, 60, first=240)
    eventually(lambda: assert_all_equal_to_sql(stack, whole, whole, whole), within=60)
    assert whole.events() == 60


@pytest.mark.slow
@pytest.mark.cost(30)
def test_a_group_whose_only_worker_was_killed_is_away_then_elsewhere_and_answers_again_after_its_return(stack: Stack):
    stack.env["LATELY_SIMILAR"] = "0"
    users, products = (stack.worker(name, LATELY_AGENTS=name).start() for name in ("by_user", "by_product"))
    for worker in (users, products):
        worker.wait_ready()
    stack.publish("orders", *(wire(event(user_id=user, order_id="o-1", product_name="tea")) for user in CUSTOMERS))

    def assert_complete() -> None:
        for worker in (users, products):
            assert worker.totals("tea")[0] == len(CUSTOMERS)
            assert all(len(worker.purchases(user)) == 1 for user in CUSTOMERS)

    eventually(assert_complete, within=60)
    for killed, other, path in ((products, users, "/v1/products/tea"), (users, products, "/v1/users/user-1/purchases")):
        killed.kill()
        codes: list[str] = []

        def ended(other: Worker = other, path: str = path, codes: list[str] = codes) -> bool:
            answer = other.get(path)
            codes.append(f"{answer.status} {answer.json['code']}")
            return codes[-1].startswith("421")

        # Kafka counts a killed worker as a member until its session ends.
        eventually(ended, within=30)
        assert list(dict.fromkeys(codes)) == ["503 owner-away", "421 agent-elsewhere"]
        assert_elsewhere(other, path, killed.folder.name)
        assert other.get("/readyz").status == 200
        killed.start().wait_ready()
        eventually(assert_complete, within=30)


def test_an_agent_that_does_not_exist_or_is_switched_off_ends_with_2(stack: Stack):
    code, output = run_to_end(stack, FAUST_WORKER, LATELY_AGENTS="by_user,by_usr")
    assert (code, output) == (
        2, "lately: LATELY_AGENTS: there is no agent 'by_usr'; there are by_user, by_product, baskets, similar"
    )  # fmt: skip
    code, output = run_to_end(stack, FAUST_WORKER, LATELY_AGENTS="baskets", LATELY_SIMILAR="0")
    assert (code, output) == (2, "lately: LATELY_AGENTS: baskets has nothing to do, LATELY_SIMILAR is 0")


def with_the_tutorial(folder: Path) -> Path:
    """A copy of the tree in which somebody has followed docs/tutorial.md."""
    tutorial = (ROOT / "docs" / "tutorial.md").read_text()
    for package in ("app", "agents", "chunks", "commands", "domain", "source", "tables", "web"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    name = re.search(r"The file `(.+?)`", tutorial).group(1)
    (folder / name).write_text(re.search(r"```python\n(.*?)```", tutorial, re.DOTALL).group(1))
    before, after = re.search(r"```diff\n-(.*)\n\+(.*)\n```", tutorial).groups()
    main = (folder / "app" / "main.py").read_text()
    assert main.count(before) == 1
    (folder / "app" / "main.py").write_text(main.replace(before, after))
    return folder


def test_the_processor_of_the_tutorial_sends_its_alerts_beside_the_others(stack: Stack, tmp_path: Path):
    tree = with_the_tutorial(tmp_path / "tree")
    command = re.search(r"^(LATELY_AGENTS=.*) lately worker", (ROOT / "docs" / "tutorial.md").read_text(), re.MULTILINE)
    said = dict(word.split("=") for word in command.group(1).split())
    folder = str(tmp_path / said["LATELY_DATA_DIR"])

    # The copy runs all of Lately as before, too.
    whole = stack.worker("whole")
    refunds = stack.worker("refunds", **{**said, "LATELY_WEB_PORT": str(find_free_port()), "LATELY_DATA_DIR": folder})
    for worker in (whole, refunds):
        worker.process.cwd = tree
        worker.start()
    refunds.port = int(refunds.env["LATELY_WEB_PORT"])
    for worker in (whole, refunds):
        worker.wait_ready()

    placed = [event(order_id=f"o-{n}", product_name=name, version=1) for n in range(1, 6) for name in ("tea", "cup")]
    gone = [event("order.removed", order_id=one.data.order_id, product_name=one.data.product_name, version=2)
            for one in placed]  # fmt: skip
    stack.publish("orders", *map(wire, placed), (b"ann", b"unreadable"), *map(wire, gone[:6]), *map(wire, gone[:2]))
    alert = {"user_id": "ann", "orders": ["o-1", "o-2", "o-3"]}
    alerts = lambda: [(one.key(), json.loads(one.value())) for one in stack.records("refund-alerts")]  # noqa: E731
    eventually(lambda: alerts() == [(b"ann", alert)], within=30)
    eventually(lambda: len(whole.purchases("ann")) == 4, within=30)

    # Killed and started again it goes on where it was: two more are not three, and the sixth order is.
    refunds.kill()
    eventually(lambda: not refunds.process.is_running)
    stack.publish("orders", *map(wire, gone[6:]), wire(event("order.removed", order_id="o-9", version=9)))
    refunds.start().wait_ready()
    more = {"user_id": "ann", "orders": ["o-4", "o-5", "o-9"]}
    eventually(lambda: alerts() == [(b"ann", alert), (b"ann", more)], within=30)
    eventually(lambda: whole.purchases("ann") == [], within=30)
    assert len(stack.records("orders-dead")) == 1
    assert [one.process.tail(10_000).count("Worker ready") for one in (whole, refunds)] == [1, 1]


def test_agents_in_the_background_that_stand_still_hold_up_no_orders_however_many_partitions_there_are(stack: Stack):
    users = [f"user-{number}" for number in range(200)]

    def buy(worker: Worker, order_id: str) -> None:
        stack.publish("orders", *(wire(event(user_id=user, order_id=order_id)) for user in users))
        eventually(lambda: all(order_id in str(worker.purchases(user)) for user in users), within=60)

    # More partitions wait for the agents in the background than chunks fit into the queue of another topic.
    stack.env["LATELY_PARTITIONS"] = "24"
    alone = stack.worker(LATELY_AGENTS="by_user").start().wait_ready()
    buy(alone, "o-1")
    alone.stop()
    worker = stack.worker(command=FAULTY_WORKER, CRASH_STANDSTILL="1").start()
    worker.wait_ready()
    eventually(lambda: "standing still" in worker.process.tail(), within=30)
    buy(worker, "o-2")
    worker.kill()
