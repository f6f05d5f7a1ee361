"""`lately users erase`: a user is gone, old events bring nothing back, and the proof says what is where."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from confluent_kafka import Producer

from domain import dead_letters
from domain.errors import UnreadableEvent
from domain.events import ERASED
from domain.partitioning import partition_of
from tests.kit.co_purchases import also_bought
from tests.kit.commands import erase_user, prove_erasure, verify
from tests.kit.eventually import eventually
from tests.kit.makers import event, wire
from tests.kit.orders import NOW, buy, cancel
from tests.kit.stack import Stack, Worker


def newest(stack: Stack, table: str, owns: Callable[[bytes], bool]) -> dict[bytes, bytes | None]:
    """The newest value of each key of a changelog."""
    return {one.key(): one.value() for one in stack.records(f"{table}-changelog") if owns(one.key())}


def buyers(worker: Worker) -> dict[str, int]:
    """Product -> users that bought it lately."""
    products = worker.get("/v1/products/popular?limit=100").json["products"]
    return {product["product_name"]: product["score"] for product in products}


def bury(stack: Stack, key: bytes, value: bytes) -> None:
    """A dead letter."""
    producer = Producer({"bootstrap.servers": stack.servers.kafka})
    headers = dead_letters.build_headers(UnreadableEvent("unknown-type", "?"), topic="x", partition=0, offset=7)
    producer.produce(
        stack.topic("orders-dead"), value, key, partition=partition_of(b"ann", stack.partitions), headers=headers
    )
    assert producer.flush(20) == 0


@pytest.mark.cost(40)
def test_an_erased_user_is_gone_and_stays_gone_until_they_buy_again(stack: Stack):
    stack.create_orders()
    stack.setup(since=None)
    source = stack.source()
    worker = stack.worker().start().wait_ready()
    # More than are kept in one value, some of them removed.
    buy(stack, *(("ann", f"Junk {number}") for number in range(150)), at=NOW - timedelta(days=1))
    buy(stack, ("ann", "Phone"), ("ann", "Case"), ("Ann", "Phone"), ("Ann", "Case"), ("bob", "Phone"))
    cancel(stack, "ann", "Junk 7")
    eventually(lambda: also_bought(worker, "Phone").get("Case") == 2 and worker.totals("Phone")[0] == 3, within=30)
    bury(stack, b"ann", b"?")
    bury(stack, b"", b'{"data": {"user_id": "ann"}}')
    bury(stack, b"bob", b'{"data": {"user_id": "bob"}}')
    bury(stack, b"ann", b"behind the one of bob")

    # The shop's database is the truth.
    code, said = erase_user(stack, worker, "ann")
    assert (code, "still has 151 rows of this user" in said) == (2, True)
    code, places = prove_erasure(stack, worker, "ann", "--dry-run")
    assert (code, {name for name, one in places.items() if one["left"]}) == (
        3,
        {"MySQL table orders", "API answer", "table by_user", "table baskets", "topic by_user-changelog",
         "topic baskets-changelog", "open dead letters"},
    )  # fmt: skip
    source.stop()
    stack.execute("DELETE FROM orders WHERE BINARY user_id = 'ann'")
    code, said = erase_user(stack, worker, "ann")
    assert (code, "0 rows of this user, and 151 changes" in said) == (2, True)
    stack.source()
    eventually(lambda: erase_user(stack, worker, "ann", "--dry-run")[0] == 0, within=30)
    assert not [one for one in stack.events() if one["type"] == ERASED]

    code, places = prove_erasure(stack, worker, "ann")
    assert (code, [name for name, one in places.items() if one["left"]]) == (0, [])
    (erased,) = [one for one in stack.events() if one["type"] == ERASED]
    assert places["topic orders"]["found"] == 152 + 152 + 1
    assert places["topic purchase-changes"]["found"] == 2 * 152
    # Two letters lay before one of somebody else that is open; one lies behind it, and the notes on all of them.
    assert places["topic orders-dead"]["found"] == 3
    assert [one.key() for one in stack.records("orders-dead")][:2] == [b"bob", b"ann"]
    assert worker.get("/v1/users/ann/purchases").json["purchases"] == []
    by_user = newest(stack, "by_user", lambda key: key.partition(b"\x00")[0] == b"ann")
    assert len(by_user) > 100
    assert {key for key, value in by_user.items() if value is not None} == {b"ann"}
    assert len(by_user[b"ann"]) < 20
    assert not any(newest(stack, "baskets", lambda key: key.partition(b"\x00")[0] == b"ann").values())
    assert (also_bought(worker, "Phone"), worker.totals("Phone")) == ({"Case": 1}, (2, "2.00"))
    eventually(lambda: buyers(worker) == {"Phone": 2, "Case": 1})

    # What is published again, by whomever, changes nothing; and is no difference to MySQL.
    again = [(one.key(), one.value()) for one in stack.records("orders") if one.key() == b"ann"]
    stack.publish("orders", *again)
    stack.publish("orders", wire(event(user_id="ann", version=erased["data"]["version"])))
    stack.publish("orders", wire(event(user_id="bob", order_id="last", product_name="Lens", version=1)))
    eventually(lambda: worker.totals("Lens")[0] == 1, within=20)
    eventually(lambda: worker.events() == stack.high_watermark("orders"), within=20)
    assert worker.purchases("ann") == []
    code, places = prove_erasure(stack, worker, "ann", "--dry-run")
    assert (code, places["topic orders"]["found"]) == (0, 2 * 305 + 1)
    assert verify(stack, worker, "--user", "ann")[:2] == (0, [])

    # An empty disk, and a new purchase.
    worker.kill()
    stack.wipe(worker)
    worker = stack.worker().start().wait_ready()
    assert worker.purchases("ann") == []
    eventually(lambda: buyers(worker) == {"Phone": 2, "Case": 1})
    buy(stack, ("ann", "Phone"))
    eventually(lambda: [one[1] for one in worker.purchases("ann")] == ["Phone"], within=10)
    eventually(lambda: worker.totals("Phone")[0] == 3, within=10)
    assert erase_user(stack, worker, "")[0] == 2
