"""`lately trace` and its route: where an order is, without a search, and why it is not visible where it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime

import pytest

from app import tokens
from domain import purchases
from domain.partitioning import partition_of
from local.process import LocalProcess
from tests.kit.authentication import SECRET, TOKEN_MODE
from tests.kit.eventually import eventually
from tests.kit.spans import Collector, collecting
from tests.kit.stack import PYTHON, ROOT, Stack, Worker

pytestmark = pytest.mark.both_databases

ROWS = 3_000
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOW = "2026-01-31 12:00:00"


def trace(stack: Stack, worker: Worker, *words: str) -> tuple[int, dict]:
    """Exit code and JSON of `lately trace`."""
    process = stack.lately("trace", *words, "--json", LATELY_WEB_PORT=str(worker.port))
    said = process.tail(1_000).splitlines()
    assert said, process.child.returncode
    return process.child.returncode, json.loads(said[-1]) if said[-1].startswith("{") else {"error": said[-1]}


@contextmanager
def publishing(stack: Stack, **env: str) -> Iterator[LocalProcess]:
    process = stack.source(**env)
    yield process
    process.stop()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@pytest.mark.slow_on("mysql")
@pytest.mark.cost(60)
def test_the_life_of_an_order_is_told_without_a_search_and_is_what_the_topics_say(stack: Stack):
    shop = stack
    shop.create_orders()
    shop.setup()
    worker = shop.worker().start().wait_ready()
    with publishing(shop):
        shop.insert(*((f"before-{number}", "Lamp", f"u{number % 7}", "1.00", NOW, "card") for number in range(ROWS)))
        eventually(lambda: worker.events() == ROWS, within=40)
    shop.insert(("o-1", "Phone", "ann", "5.00", NOW, "card"), ("o-1", "Case", "ann", "2.00", NOW, "card"))
    code, said = trace(shop, worker, "o-1")
    assert (code, said["outcome"]) == (3, "different")
    assert said["diagnosis"].startswith("in outbox for ")

    follower = LocalProcess("follow", [PYTHON, "-m", "app", "trace", "o-1", "--follow", "--within", "50"], shop.folder,
                            env={**shop.env, "LATELY_WEB_PORT": str(worker.port)}, cwd=ROOT)  # fmt: skip
    shop.processes.append(follower)
    follower.start()
    eventually(lambda: "in outbox" in follower.tail(100), within=20)
    with publishing(shop):
        follower.child.wait(50)
        assert follower.child.returncode == 0, follower.tail()
        lines = [line for line in follower.tail(100).splitlines() if line.startswith("Phone: ")]
        # Between two stages the order may be seen waiting for the worker.
        stages = [line for line in lines if not line.startswith("Phone: in Kafka, lag ")]
        assert [line.split()[1] for line in stages] == ["in", "captured", "published", "applied", "visible"]
        eventually(lambda: worker.events() == ROWS + 2, within=30)

        code, said = trace(shop, worker, "o-1")
        assert code == 0
        assert said["diagnosis"].startswith("visible since ")
        assert said["meta"]["records_fetched"] < 50
        check_stages(shop, worker, said)

        check_traceparents(shop)
        check_trace_without_a_column(shop)
        check_changes(shop, worker)
        check_what_no_trigger_sees(shop, worker)


def check_stages(shop: Stack, worker: Worker, said: dict) -> None:
    """Each stage is the record that another client finds there."""
    home = partition_of(b"ann", shop.partitions)
    orders = {(one.partition(), one.offset()): one for one in shop.records("orders")}
    changelog = {(one.partition(), one.offset()): one for one in shop.records("by_user-changelog")}
    assert [one["product_name"] for one in said["purchases"]] == ["Phone", "Case"]
    for purchase in said["purchases"]:
        captured, published, applied = purchase["stages"]
        assert moment(captured["at"]) <= moment(published["at"]) <= moment(applied["at"])
        record = orders[published["partition"], published["offset"]]
        event = json.loads(record.value())
        assert published["partition"] == home
        assert (event["id"], event["time"], event["type"]) == (captured["event_id"], captured["at"], "order.placed")
        assert event["data"]["product_name"] == purchase["product_name"]
        assert record.timestamp()[1] == moment(published["at"]).timestamp() * 1000
        kept = changelog[applied["partition"], applied["offset"]]
        known = {one.product_name: one for one in purchases.decode_recent(kept.value()).purchases}
        assert kept.key() == b"ann"
        assert known[purchase["product_name"]].version == purchase["version"] == event["data"]["version"]
        assert applied["worker"] == f"http://127.0.0.1:{worker.port}"
        earlier = [one for one in changelog.values() if one.key() == b"ann" and one.offset() < kept.offset()]
        for one in earlier:
            assert purchase["product_name"] not in {
                it.product_name for it in purchases.decode_recent(one.value()).purchases
            }


def asked(worker: Worker, order: str, user: str | None = None) -> dict:
    """What the route says; nothing else asks for less."""
    answer = worker.get(f"/v1/orders/{order}/trace" + (f"?user_id={user}" if user else ""))
    assert answer.status == 200, answer
    assert answer.json["meta"]["records_fetched"] < 100
    return answer.json


def check_traceparents(shop: Stack) -> None:
    """From the session's variable whatever its type, and nothing that could fail the shop's statement."""
    events = {}
    with closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
        for number, value in enumerate(
            [TRACE, None, "garbage" * 50, TRACE.encode(), 7, b"\xff\x00" * 30, "é\U0001f600"]
        ):
            if isinstance(value, bytes):
                cursor.execute("SET @traceparent = UNHEX(%s)", (value.hex(),))
            else:
                cursor.execute("SET @traceparent = %s", (value,))
            cursor.execute(
                "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at)"
                " VALUES (%s, 'Pen', 'eve', 1, %s)",
                (f"t-{number}", NOW),
            )
            connection.commit()
            events[f"t-{number}"] = TRACE if value in (TRACE, TRACE.encode()) else None
    eventually(lambda: shop.outbox_is_empty(), within=20)
    said = {one["data"]["order_id"]: one.get("traceparent") for one in shop.events() if one["subject"].startswith("t-")}
    assert said == events


def check_trace_without_a_column(shop: Stack) -> None:
    """The shop's rows do not say what a session was told: then it is said what does."""
    trace_id = TRACE.split("-")[1]
    refused = shop.lately("trace", "--trace-id", trace_id)
    assert refused.child.returncode == 2
    assert "LATELY_SOURCE_COLUMNS" in refused.tail(1)
    assert "--history" in refused.tail(1)
    lines = shop.lately("trace", "--trace-id", trace_id, "--history", "--json").tail(100).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert sorted(one["order_id"] for one in events) == ["t-0", "t-3"]
    assert {one["traceparent"] for one in events} == {TRACE}
    assert shop.lately("trace", "--trace-id", trace_id[1:]).child.returncode == 2


def check_changes(shop: Stack, worker: Worker) -> None:
    """Changed, moved to another user, cancelled, and a row that breaks a rule."""
    shop.execute("UPDATE orders SET price = 7 WHERE order_id = 'o-1' AND product_name = 'Phone'")
    eventually(lambda: "is superseded by version" in asked(worker, "o-1")["purchases"][0]["diagnosis"], within=20)
    assert asked(worker, "o-1")["outcome"] == "visible"

    shop.execute("UPDATE orders SET user_id = 'bob' WHERE order_id = 'o-1' AND product_name = 'Case'")
    eventually(lambda: worker.purchases("bob"), within=20)
    # The users are in different partitions, of which either may be the first.
    eventually(lambda: ("o-1", "Case") not in {purchase[:2] for purchase in worker.purchases("ann")}, within=20)
    code, said = trace(shop, worker, "o-1", "--user", "ann")
    assert (code, said["diagnosis"]) == (0, said["diagnosis"])
    assert "moved to another user, bob" in {one["product_name"]: one["diagnosis"] for one in said["purchases"]}["Case"]
    assert "bob" not in json.dumps(asked(worker, "o-1", "ann"))

    shop.execute("DELETE FROM orders WHERE order_id = 'o-1' AND product_name = 'Phone'")
    eventually(lambda: worker.purchases("ann") == [], within=20)
    said = {one["product_name"]: one for one in asked(worker, "o-1", "ann")["purchases"]}["Phone"]
    assert said["outcome"] == "cancelled"
    assert said["diagnosis"].startswith(f"cancelled: removed by version {said['version']} at ")

    shop.insert(("o-2", "Phone", "ann", "-5.00", NOW, "card"))
    said = eventually(lambda: (one := asked(worker, "o-2"))["diagnosis"].startswith("in DLQ") and one, within=20)
    assert "in DLQ: broken-rule (price must be" in said["diagnosis"]
    assert said["outcome"] == "different"

    lines = shop.lately("trace", "o-1", "--history", "--user", "ann", "--json").tail(100).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert [(one["product_name"], one["type"], one["state"].split()[0]) for one in events] == [
        ("Phone", "order.placed", "superseded"), ("Case", "order.placed", "superseded"),
        ("Phone", "order.changed", "superseded"), ("Case", "order.removed", "applied"),
        ("Phone", "order.removed", "applied"),
    ]  # fmt: skip


def check_what_no_trigger_sees(shop: Stack, worker: Worker) -> None:
    """TRUNCATE, and an order that nobody has ever placed."""
    shop.execute("TRUNCATE orders")
    assert asked(worker, "o-1", "bob")["diagnosis"].startswith("visible, but not in MySQL")
    code, said = trace(shop, worker, "o-9")
    assert (code, said["outcome"]) == (2, "unknown")
    assert said["diagnosis"].startswith("not in MySQL")
    answer = worker.get("/v1/orders/o-9/trace")
    assert (answer.status, answer.json["code"]) == (404, "unknown-order")
    lines = shop.lately("trace", "--user", "u1", "--last", "2", LATELY_WEB_PORT=str(worker.port)).tail(100).splitlines()
    assert lines[-1] == "2 purchases"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as one:
        yield one


@pytest.mark.one_database("tokens, spans and logs belong to the worker")
@pytest.mark.cost(20)
def test_a_user_is_told_of_their_own_orders_only_and_a_trace_goes_on_from_the_row_to_the_table(
    stack: Stack, collector: Collector
):
    stack.create_orders()
    stack.execute("ALTER TABLE orders ADD COLUMN trace VARCHAR(200)")
    stack.env["LATELY_SOURCE_COLUMNS"] = "traceparent=trace"
    stack.setup()
    logs = {"LATELY_LOG": "json", "LATELY_CURSOR_SECRET": "secret-of-cursors", **TOKEN_MODE, **collector.env}
    worker = stack.worker(**logs).start().wait_ready()
    stack.execute(
        "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, trace)"
        " VALUES ('o-1', 'Phone', 'ann', 5, %s, %s)",
        (NOW, TRACE),
    )

    assert of_trace(stack, worker) == (3, {"o-1": "different"})

    def status(path: str, user: str | None) -> tuple[int, str]:
        token = tokens.create_token(SECRET, user=user) if user else tokens.create_token(SECRET, operator=True)
        answer = worker.get(path, Authorization=f"Bearer {token}", traceparent=TRACE)
        return answer.status, answer.json.get("code") or answer.json["outcome"]

    with publishing(stack, **logs) as source:
        eventually(lambda: status("/v1/orders/o-1/trace", None) == (200, "visible"), within=30)
        assert [one["traceparent"] for one in stack.events()] == [TRACE]
        assert of_trace(stack, worker) == (0, {"o-1": "visible"})
        assert status("/v1/orders/o-1/trace?user_id=ann", "ann") == (200, "visible")
        assert status("/v1/orders/o-1/trace?user_id=ann", "bob") == (403, "not-your-data")
        assert status("/v1/orders/o-1/trace", "ann") == (403, "operators-only")
        assert status("/v1/orders/o-1/trace?user_id=bob", "bob") == (404, "unknown-order")
        assert status("/v1/orders/o%00/trace?user_id=ann", "ann") == (400, "invalid-order-id")

        stack.execute(
            "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, trace)"
            " VALUES ('o-2', 'Phone', 'secret-user', -77.31, %s, %s)",
            (NOW, TRACE),
        )
        eventually(lambda: stack.outbox_is_empty(), within=20)
        assert of_trace(stack, worker) == (3, {"o-1": "visible", "o-2": "different"})
    [event] = stack.events()
    check_spans(stack, collector, event)
    strange = event | {"type": "secret-type", "data": event["data"] | {"order_id": "o-3", "user_id": "secret-user"}}
    stack.publish("orders", (b"secret-user", json.dumps(strange).encode()))
    eventually(lambda: len(stack.records("orders-dead")) == 2, within=20)
    check_logs(stack, worker, source)


def of_trace(stack: Stack, worker: Worker) -> tuple[int, dict[str, str]]:
    """Exit code and outcomes of `lately trace --trace-id`."""
    words = ("trace", "--trace-id", TRACE.split("-")[1].upper(), "--json")
    process = stack.lately(*words, LATELY_WEB_PORT=str(worker.port), **TOKEN_MODE)
    said = [json.loads(line) for line in process.tail(100).splitlines() if line.startswith("{")]
    return process.child.returncode, {one["order_id"]: one["outcome"] for one in said}


def check_spans(stack: Stack, collector: Collector, event: dict) -> None:
    """Each is a child of what the row said, and none names a user."""
    topic, place = stack.topic("orders"), {"messaging.system": "kafka", "messaging.message.id": event["id"]}
    place |= {"messaging.destination.name": topic, "messaging.destination.partition.id": str(event["partition"])}
    wanted = {
        f"publish {topic}": place,
        f"process {topic}": {**place, "messaging.kafka.offset": 0, "messaging.consumer.group.name": stack.name},
        "GET /v1/orders/{order_id}/trace": {"http.request.method": "GET", "http.route": "/v1/orders/{order_id}/trace"},
    }
    eventually(lambda: {name for name, *_ in collector.spans} == wanted.keys(), within=20)
    for name, trace_id, parent, about in collector.spans:
        assert (trace_id, parent) == tuple(TRACE.split("-")[1:3])
        assert wanted[name].items() <= about.items()
        assert "ann" not in str(about)
    assert len([one for one in collector.spans if one[0].startswith("p")]) == 2


def check_logs(stack: Stack, worker: Worker, source: LocalProcess) -> None:
    """Lines of JSON that say which order they are about, and nothing that is secret or personal."""
    lines = {one: one.tail(10_000).splitlines() for one in (worker.process, source)}
    said = []
    for some in lines.values():
        begin = next(number for number, line in enumerate(some) if line.startswith("{"))
        said += map(json.loads, some[begin:])
    about = {one["order_id"]: one for one in said if "order_id" in one}
    trace_id = TRACE.split("-")[1]
    assert about.keys() == {"o-2", "o-3"}
    assert {one["trace_id"] for one in about.values()} == {trace_id}
    assert about["o-2"]["topic"] == stack.topic("orders-dead")
    assert (about["o-3"]["topic"], about["o-3"]["logger"]) == (stack.topic("orders"), "tables.unreadable")
    assert {"partition", "offset"} <= about["o-3"].keys()
    everything = "\n".join(line for some in lines.values() for line in some)
    for secret in ("secret-", SECRET, "77.31", stack.servers.password or SECRET):
        assert secret not in everything
