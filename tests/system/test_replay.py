"""`lately replay`: the events folded once more say what the tables say; where not, exactly that is found and mended."""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import datetime, timedelta

import msgspec
import pytest

from app.topics import TABLES
from domain import purchases
from domain.partitioning import partition_of
from tests.kit.eventually import eventually
from tests.kit.stack import PARTITIONS, Stack, Worker

USERS = [f"user-{number}" for number in range(30)]


def rows(first: int, count: int) -> list[tuple]:
    at = datetime(2026, 1, 31)
    return [
        (f"o{number:05}", f"Product {number % 7}", USERS[number % len(USERS)], f"{number % 50}.50",
         at + timedelta(seconds=number), "card")
        for number in range(first, first + count)
    ]  # fmt: skip


def replay(stack: Stack, worker: Worker, *words: str) -> tuple[int, list[dict], dict]:
    """Exit code, differences and outcome of `lately replay --json`."""
    url = f"http://127.0.0.1:{worker.port}"
    process = stack.lately("replay", "--json", "--worker", url, *words)
    lines = process.tail(10_000).splitlines()
    assert process.child.returncode in (0, 3), lines
    said = [json.loads(line) for line in lines if line.startswith("{")]
    return process.child.returncode, said[:-1], said[-1]


def found(differences: list[dict]) -> set[tuple]:
    return {(one["kind"], one["user_id"], one["order_id"]) for one in differences}


def content(worker: Worker) -> dict[tuple, bytes]:
    """All that all tables hold, by table, partition and key."""
    known = {}
    for table in TABLES:
        for partition in range(PARTITIONS):
            after: bytes | None = b""
            while after is not None:
                answer = worker.get(f"/v1/tables/{table}/{partition}" + (f"?after={after.hex()}" if after else ""))
                _, pairs, after = msgspec.msgpack.decode(answer.body)
                known |= {(table, partition, key): value for key, value in pairs}
    return known


def changed(stack: Stack, user: str, change) -> tuple[bytes, bytes]:
    """The changelog record that lets the table by_user say something else of a user's purchases."""
    newest = {one.key(): one.value() for one in stack.records_of(f"{stack.name}-by_user-changelog")}
    recent = purchases.decode_recent(newest[user.encode()])
    registers = [kept for one in recent.purchases if (kept := change(one)) is not None]
    return user.encode(), purchases._encode_recent(recent.floor, registers)


def is_at_rest(stack: Stack) -> bool:
    """Whether every agent has read all that those before it have sent."""
    flow = ("orders", "product-partials", "purchase-changes", "co-purchases")
    return all(stack.committed(topic) == stack.high_watermark(topic) for topic in flow)


@pytest.mark.cost(55)
def test_replays_change_nothing_where_nothing_is_wrong_and_find_and_mend_exactly_what_is(stack: Stack):
    stack.create_orders()
    stack.insert(*rows(0, 300))
    stack.setup(since=None)
    stack.source()
    worker = stack.worker().start().wait_ready()
    stack.execute("UPDATE orders SET price = price + 1 WHERE order_id < 'o00020'")
    stack.execute("DELETE FROM orders WHERE order_id > 'o00290'")
    eventually(lambda: stack.assert_equal_to_sql(worker, USERS), within=60)
    eventually(stack.outbox_is_empty, within=30)
    eventually(lambda: is_at_rest(stack), within=60)

    # Nothing is wrong: nothing is found, nothing is published, and the same events once more change no byte.
    end, before = stack.high_watermark("orders"), content(worker)
    code, differences, outcome = replay(stack, worker)
    assert (code, differences, outcome["events"], outcome["users"]) == (0, [], end, len(USERS))
    assert stack.high_watermark("orders") == end
    assert replay(stack, worker, "--into", "live", "--dry-run")[2] == {"events": end, "published": False}
    assert replay(stack, worker, "--into", "live")[2] == {"events": end, "published": True}
    assert stack.high_watermark("orders") == 2 * end
    eventually(lambda: stack.committed("orders") == 2 * end, within=30)
    again = [one for one in stack.records("orders") if "lately.replay" in dict(one.headers() or [])]
    assert len(again) == end
    eventually(lambda: is_at_rest(stack), within=60)
    assert content(worker) == before

    # A table that is wrong, though no event says so: another price, a purchase too few, one too many.
    worker.stop()
    stack.wipe(worker)

    def priced(one: purchases.Purchase) -> purchases.Purchase:
        return msgspec.structs.replace(one, price="999.00") if one.order_id == "o00041" else one

    def lost(one: purchases.Purchase) -> purchases.Purchase | None:
        return None if one.order_id == "o00042" else one

    def renamed(one: purchases.Purchase) -> purchases.Purchase:
        return msgspec.structs.replace(one, order_id="phantom") if one.order_id == "o00043" else one

    wrong = [changed(stack, *one) for one in (("user-11", priced), ("user-12", lost), ("user-13", renamed))]
    stack.publish_to(f"{stack.name}-by_user-changelog", *wrong)
    worker = stack.worker().start().wait_ready()
    planted = {
        ("changed", "user-11", "o00041"), ("missing", "user-12", "o00042"), ("missing", "user-13", "o00043"),
        ("extra", "user-13", "phantom"),
    }  # fmt: skip
    end = stack.high_watermark("orders")
    code, differences, outcome = replay(stack, worker, "--dry-run")
    assert (code, found(differences), outcome["mended"], outcome["whole"]) == (3, planted, 0, True)
    assert stack.high_watermark("orders") == end
    # A part of the log decides only what it holds.
    assert found(replay(stack, worker, "--dry-run", "--user", "user-12")[1]) == {("missing", "user-12", "o00042")}
    assert found(replay(stack, worker, "--dry-run", "--order", "o00041")[1]) == {("changed", "user-11", "o00041")}
    assert replay(stack, worker, "--dry-run", "--order", "o00040")[:2] == (0, [])
    place = f"{partition_of(b'user-12', PARTITIONS)}:1"
    code, differences, outcome = replay(stack, worker, "--dry-run", "--from", place)
    assert (code, outcome["whole"]) == (3, False)
    assert ("missing", "user-12", "o00042") in found(differences)
    assert found(differences) <= planted - {("extra", "user-13", "phantom")}
    assert found(replay(stack, worker, "--dry-run", "--since", "1h")[1]) == planted

    # Mended while orders flow, and nothing else is reported.
    ended = threading.Event()

    def trade() -> None:
        number = 300
        while not ended.is_set():
            stack.insert(*rows(number, 3))
            stack.execute("UPDATE orders SET price = price + 1 WHERE order_id = %s", (f"o{number // 2:05}",))
            number += 3

    shop = threading.Thread(target=trade)
    shop.start()
    try:
        code, differences, outcome = replay(stack, worker)
    finally:
        ended.set()
        shop.join()
    kinds = Counter(one["kind"] for one in differences)
    assert (code, found(differences) - planted, outcome["mended"]) == (0, set(), sum(kinds.values()))
    eventually(stack.outbox_is_empty, within=30)
    assert replay(stack, worker)[:2] == (0, [])
    for user in USERS:
        eventually(lambda user=user: worker.purchases(user, 100) == stack.truth(user, 100), within=30)

    worker.stop()
    assert stack.lately("replay", "--worker", f"http://127.0.0.1:{worker.port}").child.returncode == 75
