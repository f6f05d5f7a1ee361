"""Lists of products are the same on every worker, with any number of workers and through changes of the group."""

from __future__ import annotations

import random
import re
import shutil
import time
from itertools import cycle
from threading import Event
from urllib.parse import quote

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from chunks import position_key
from chunks.restore import VISIBILITY_TIMEOUT_S
from local.process import find_free_port
from tests.kit.authentication import OPERATOR, TOKEN_MODE, ask
from tests.kit.background import beside
from tests.kit.co_purchases import PRODUCTS, USERS, assert_co_purchases_equal_sql, place_random_orders, trading
from tests.kit.eventually import eventually
from tests.kit.orders import buy
from tests.kit.stack import ROOT, Stack, Worker
from tests.kit.streams import open_stream

pytestmark = pytest.mark.partitions(4)

#: One in seven users and all products, with the variants of the routes.
ROUTES = [
    *(f"/v1/users/{quote(user, safe='')}/recommendations?limit=100" for user in [*USERS[::7], *USERS[-3:], "nobody"]),
    *(f"/v1/users/{quote(user, safe='')}/recommendations?exclude=none&limit=7" for user in USERS[::13]),
    *(f"/v1/products/{quote(product, safe='')}/similar?limit=100" for product in PRODUCTS),
    *(f"/v1/products/{quote(product, safe='')}/similar?intent=complementary&fallback=none" for product in PRODUCTS),
    *(f"/v1/products/{quote(product, safe='')}/similar?for_user={USERS[5]}" for product in PRODUCTS[::5]),
    *(f"/v1/products/popular?window={window}&limit=100" for window in ("1h", "24h", "7d")),
]


def read_lists(worker: Worker) -> dict[str, list[dict]]:
    """The rows of every route; every list is complete and has a time."""
    lists = {}
    for route in ROUTES:
        answer = worker.get(route)
        assert answer.status == 200, (route, answer)
        meta = answer.json["meta"]
        assert (meta["complete"], meta["role"]) == (True, "active"), (route, meta)
        lists[route] = next(value for value in answer.json.values() if isinstance(value, list))
    return lists


def assert_equal_lists(workers: list[Worker]) -> None:
    """All workers answer every route equally."""
    first, *others = workers
    expected = read_lists(first)
    for other in others:
        for route, rows in read_lists(other).items():
            assert rows == expected[route], (route, other.port)


@pytest.mark.cost(60)
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_one_two_three_and_five_workers_answer_all_routes_equally(stack: Stack, seed: int):
    stack.create_orders()
    stack.setup()
    stack.source()
    dice = random.Random(seed)
    place_random_orders(stack, dice)
    for product in dice.sample(PRODUCTS, 12):
        stack.execute("UPDATE orders SET category = %s WHERE product_name = %s", (dice.choice("abc"), product))
    workers = [stack.worker("worker-0").start().wait_ready()]
    eventually(stack.outbox_is_empty, within=60)
    eventually(lambda: assert_co_purchases_equal_sql(stack, workers[0]), within=60)
    alone = read_lists(workers[0])
    for count in (2, 3, 5):
        workers.extend(start_workers(stack, len(workers), count))
        eventually(lambda: assert_equal_lists(workers), within=60)
        assert_co_purchases_equal_sql(stack, workers[-1])
    assert_unchanged(workers[-1], alone)
    as_of = [worker.get("/v1/products/popular").json["meta"]["as_of"] for worker in workers]
    assert None not in as_of


@pytest.mark.slow
@pytest.mark.cost(40)
def test_no_list_fails_for_long_while_a_worker_dies_joins_and_restarts(stack: Stack):
    stack.env |= {"LATELY_FALLBACK_PER_S": "200", "LATELY_STANDBY_REPLICAS": "1"}
    stack.create_orders()
    stack.setup()
    stack.source()
    place_random_orders(stack, random.Random(11))
    workers = start_workers(stack, 0, 3)
    eventually(stack.outbox_is_empty, within=60)
    eventually(lambda: assert_equal_lists(workers), within=60)
    survivors = workers[:2]
    failures: list[tuple[float, str, str]] = []

    def ask(ended: Event) -> None:
        for worker, route in zip(cycle(survivors), cycle(ROUTES), strict=False):
            began = time.monotonic()
            while (answer := worker.get(route)).status != 200 and not ended.is_set():
                failures.append((time.monotonic() - began, route, answer.json["code"]))
            if ended.is_set():
                return

    with trading(stack), beside(ask):
        workers[2].kill()
        eventually(lambda: workers[0].get("/metrics").status == 200)
        again = workers[2].start().wait_ready()
        fourth = stack.worker("worker-3").start().wait_ready()
        fourth.stop()
        again.stop()
    assert max(failures, default=(0.0,))[0] <= 1, failures
    eventually(stack.outbox_is_empty, within=60)
    eventually(lambda: assert_co_purchases_equal_sql(stack, workers[0]), within=90)
    eventually(lambda: assert_equal_lists(survivors), within=60)


@pytest.mark.slow
@pytest.mark.cost(120)
def test_three_workers_with_64_partitions_answer_all_routes_equally(stack: Stack):
    stack.env["LATELY_PARTITIONS"] = "64"
    first = start_random_shop(stack)
    alone = read_lists(first)
    workers = [first, *start_workers(stack, 1, 3)]
    eventually(lambda: assert_equal_lists(workers), within=120)
    assert_unchanged(workers[-1], alone)


@pytest.mark.cost(40)
def test_agents_in_separate_processes_answer_all_routes_as_one_process_does(stack: Stack):
    whole = start_random_shop(stack)
    alone = read_lists(whole)
    whole.stop()
    workers = [
        stack.worker(name, LATELY_AGENTS=agents).start()
        for name, agents in (("users", "by_user"), ("products", "by_product"), ("pairs", "baskets,similar"))
    ]
    for worker in workers:
        worker.wait_ready()
    eventually(lambda: assert_equal_lists(workers), within=60)
    for worker in workers:
        assert_unchanged(worker, alone)
        assert_co_purchases_equal_sql(stack, worker)


# -- lost and older states of product_sales


def start_random_shop(stack: Stack) -> Worker:
    """A worker with all orders of a shop."""
    stack.create_orders()
    stack.setup()
    stack.source()
    place_random_orders(stack, random.Random(7))
    worker = stack.worker("worker-0").start().wait_ready()
    eventually(stack.outbox_is_empty, within=60)
    eventually(lambda: assert_co_purchases_equal_sql(stack, worker), within=60)
    return worker


def start_workers(stack: Stack, first: int, end: int) -> list[Worker]:
    """The workers with the numbers from `first` to before `end`, which start at once."""
    workers = [stack.worker(f"worker-{number}").start() for number in range(first, end)]
    return [worker.wait_ready() for worker in workers]


def start_pair(stack: Stack) -> list[Worker]:
    """Two workers of a shop with random orders."""
    workers = [start_random_shop(stack), *start_workers(stack, 1, 2)]
    eventually(lambda: assert_equal_lists(workers), within=60)
    return workers


def restart(worker: Worker) -> None:
    worker.stop()
    worker.start().wait_ready()


def assert_new_purchases_are_counted(stack: Stack, workers: list[Worker]) -> None:
    buy(stack, ("new user", PRODUCTS[0]), ("new user", PRODUCTS[1]))
    for worker in workers:
        eventually(lambda worker=worker: assert_co_purchases_equal_sql(stack, worker), within=60)


def assert_unchanged(worker: Worker, expected: dict[str, list[dict]]) -> None:
    """The lists are those of before, but for what is popular, which depends on the hour."""
    for route, rows in read_lists(worker).items():
        assert _without_popular(rows) == _without_popular(expected[route]), (route, worker.port)


def _without_popular(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["source"] != "popular"]


def delete_product_sales(stack: Stack) -> None:
    """Delete the changelog, as if no version had written it yet."""
    admin, topic = AdminClient({"bootstrap.servers": stack.servers.kafka}), stack.topic("product_sales-changelog")
    admin.delete_topics([topic])[topic].result()
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics, within=30)


def delete_product_sales_on_disk(worker: Worker) -> None:
    found = [path for path in worker.folder.rglob("product_sales-*") if path.parent.name != path.name]
    assert found
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def errors(worker: Worker) -> list[str]:
    """The lines of errors in the worker's log."""
    return [line for line in worker.process.tail(10_000).splitlines() if re.search(r"ERROR|CRITICAL|Traceback", line)]


@pytest.mark.slow
@pytest.mark.cost(40)
def test_an_upgrade_builds_product_sales_and_reports_no_error(stack: Stack):
    workers = start_pair(stack)
    alone = read_lists(workers[0])
    for worker in workers:
        worker.stop()
    delete_product_sales(stack)
    for worker in workers:
        delete_product_sales_on_disk(worker)
    workers = start_workers(stack, 0, 2)
    eventually(lambda: assert_equal_lists(workers), within=60)
    for worker in workers:
        assert_unchanged(worker, alone)
        assert errors(worker) == []
    assert_new_purchases_are_counted(stack, workers)


@pytest.mark.slow
@pytest.mark.cost(90)
def test_a_changelog_that_is_lost_while_workers_run_is_built_again_and_read_by_all(stack: Stack):
    workers = first, second = start_pair(stack)
    alone = read_lists(first)
    # The copy of a restarted worker was complete at the end of a longer changelog.
    restart(first)
    eventually(lambda: assert_equal_lists(workers), within=60)
    delete_product_sales(stack)
    restart(second)
    # In this rebalance the other one waits for VISIBILITY_TIMEOUT_S whether readers still see the end of its changelog.
    eventually(lambda: assert_equal_lists([second]), within=VISIBILITY_TIMEOUT_S + 30)
    # The other one still runs, and owns partitions that are written anew only when their owner changes.
    eventually(lambda: assert_equal_lists(workers), within=60)
    restart(first)
    eventually(lambda: assert_equal_lists(workers), within=60)
    for worker in workers:
        assert_unchanged(worker, alone)
    assert_new_purchases_are_counted(stack, workers)


@pytest.mark.slow
@pytest.mark.cost(40)
def test_after_a_period_with_an_earlier_version_product_sales_is_built_again(stack: Stack):
    worker = start_random_shop(stack)
    changelog, position = "product_sales-changelog", position_key(stack.topic("co-purchases"))
    older: dict[tuple[int, bytes], bytes | None] = {}
    for record in stack.records(changelog):
        if not record.key().startswith(b"\xff") or record.key() == position:
            older[record.partition(), record.key()] = record.value()
    assert sum(key == position for _, key in older) == stack.partitions
    # The earlier version writes all other tables.
    buy(stack, *((f"later {number}", product) for number in range(6) for product in PRODUCTS[number:]))
    stack.execute("DELETE FROM orders WHERE product_name = %s", (PRODUCTS[3],))
    eventually(stack.outbox_is_empty, within=60)
    eventually(lambda: assert_co_purchases_equal_sql(stack, worker), within=60)
    expected = read_lists(worker)
    worker.stop()
    producer = Producer({"bootstrap.servers": stack.servers.kafka})
    for (partition, key), value in older.items():
        producer.produce(stack.topic(changelog), value, key, partition)
    assert producer.flush(30) == 0

    workers = start_workers(stack, 0, 2)
    eventually(lambda: assert_equal_lists(workers), within=60)
    for worker in workers:
        assert_unchanged(worker, expected)
        assert_co_purchases_equal_sql(stack, worker)
        assert errors(worker) == []
    logs = "".join(worker.process.tail(10_000) for worker in workers)
    for partition in range(stack.partitions):
        assert f"product_sales[{partition}] is built from another table" in logs


# -- the README


README = (ROOT / "README.md").read_text()
#: The values of the variables and parameters of the routes in the README.
VALUES = {
    "user_id": "ann", "product_name": "Phone", "order_id": "ann-0", "table": "by_user", "partition": "0",
    "limit": "5", "name": "Phone", "for_user": "ann", "fallback": "popular", "exclude": "none", "window": "24h",
}  # fmt: skip


def readme_requests() -> list[tuple[str, str]]:
    """Method and path of each route in the README's table, with values."""
    rows = [line for line in README.splitlines() if re.match(r"\| `(GET|POST) /", line)]
    requests = []
    for method, template in re.findall(r"`(GET|POST) (/[^`]*)`", "\n".join(row.split(" | ")[0] for row in rows)):
        path, _, query = re.sub(r"{(\w+)}", lambda found: VALUES[found[1]], template).partition("?")
        pairs = [pair.partition("=") for pair in query.split("&") if pair]
        filled = [f"{name}={value or VALUES[name]}" for name, _, value in pairs if value or name in VALUES]
        requests.append((method, path + ("?" + "&".join(filled) if filled else "")))
    assert len(requests) > 20
    return requests


@pytest.mark.cost(20)
def test_every_route_of_the_readme_answers_on_the_second_worker_as_on_the_first(stack: Stack):
    stack.env |= TOKEN_MODE
    stack.create_orders()
    stack.setup()
    stack.source()
    command = re.search(r"^`(LATELY_DATA_DIR=.*) lately worker -l info`", README, re.MULTILINE)
    assert command is not None, "the README starts a second worker"
    env = dict(word.split("=") for word in command[1].split())
    assert env.keys() == {"LATELY_DATA_DIR", "LATELY_WEB_PORT"}
    # The port may be in use on this machine.
    env = {"LATELY_DATA_DIR": str(stack.folder / env["LATELY_DATA_DIR"]), "LATELY_WEB_PORT": str(find_free_port())}
    first, second = stack.worker("first").start(), stack.worker("second", **env)
    second.port = int(env["LATELY_WEB_PORT"])
    second.start()
    workers = [first.wait_ready(), second.wait_ready()]
    buy(stack, ("ann", "Phone"), ("bob", "Phone"), ("bob", "Case"), ("a", "Case"), ("b", "Phone"))
    stack.execute("UPDATE orders SET order_id = 'ann-0' WHERE user_id = 'ann'")
    for worker in workers:
        eventually(lambda worker=worker: _assert_ok(worker, "/v1/products/Phone/similar", "Case"), within=60)
        eventually(lambda worker=worker: _assert_ok(worker, "/v1/users/ann/purchases", "ann-0"), within=60)
        for method, path in readme_requests():
            if path.endswith("/stream"):
                with open_stream(worker, "ann", Authorization=f"Bearer {OPERATOR}") as stream:
                    assert stream.event()[1]["meta"]["complete"] is True
            elif method == "POST":
                body = b'{"logger": "web", "level": "info"}'
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}\r\n"
                head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                assert worker.ask_raw(head.encode() + body).status == 200, path
            else:
                answer = ask(worker, path, OPERATOR)
                assert answer.status == 200, (path, answer)


def _assert_ok(worker: Worker, path: str, text: str) -> None:
    answer = ask(worker, path, OPERATOR)
    assert (answer.status, text in answer.text) == (200, True), answer
