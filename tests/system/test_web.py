"""The views on a running worker: what they answer, and that they never answer too early."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.kit.eventually import eventually
from tests.kit.shared_shop import SharedShop
from tests.kit.stack import Stack, Worker

NOW = datetime(2026, 1, 31, 12)


@pytest.fixture
def running(stack: Stack) -> Worker:
    """A worker behind a source that follows a shop."""
    stack.create_orders()
    stack.setup()
    stack.source()
    return stack.worker().start().wait_ready()


def test_an_order_is_visible_everywhere_soon_after_its_commit(shared_shop: SharedShop):
    worker = shared_shop.worker
    ann, o1, phone, case = shared_shop.names("ann", "o1", "Phone", "Case")
    shared_shop.stack.insert((o1, phone, ann, "19.90", NOW, "card"), (o1, case, ann, "5.00", NOW, "card"))
    eventually(lambda: len(worker.purchases(ann)) == 2)
    eventually(lambda: worker.get(f"/v1/users/{ann}/purchases").json["meta"]["as_of"] is not None)
    answer = worker.get(f"/v1/users/{ann}/purchases").json
    as_of, lag_ms = answer["meta"].pop("as_of"), answer["meta"].pop("lag_ms")
    assert as_of.endswith("Z")
    assert lag_ms >= 0
    assert answer == {
        "user_id": ann,
        "purchases": [
            {
                "order_id": o1,
                "product_name": product,
                "price": price,
                "ordered_at": "2026-01-31T12:00:00Z",
                "payment_method": "card",
                "category": None,
                "position": position,
            }
            for position, (product, price) in enumerate([(phone, "19.90"), (case, "5.00")], 1)
        ],
        "meta": {
            "limit": 20,
            "complete": True,
            "role": "active",
            "worker": f"http://127.0.0.1:{worker.port}",
            "guarantee": "proven",
            "unseen": [],
            "verified_at": None,
        },
    }
    eventually(lambda: worker.totals(phone) == (1, "19.90"))
    page = worker.get(f"/users/{ann}")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for text in (phone, "19.90", "2026-01-31 12:00:00 UTC", "paid by card"):
        assert text in page.text
    assert worker.get(f"/v1/users/{ann}/purchases?limit=1").json["purchases"][0]["product_name"] == phone


def test_any_user_id_comes_back_as_it_was_stored(shared_shop: SharedShop):
    # As they are: a prefix would change what is special about them. No other test uses them in this shop.
    users = ["a/b", "50%", "ünï 😀", "dot.", "a+b", "a?b#c", "..a", "x" * 128]
    o1 = shared_shop.name("o1")
    shared_shop.stack.insert(*[(o1, f"Phone {number}", user, "1.00", NOW, "card") for number, user in enumerate(users)])
    for number, user in enumerate(users):
        line = (o1, f"Phone {number}", "1.00", "2026-01-31T12:00:00Z", "card")
        eventually(lambda user=user, line=line: shared_shop.worker.purchases(user) == [line])


def test_while_tables_recover_the_answer_is_503_and_never_an_empty_list(stack: Stack, running: Worker):
    stack.insert(*[(f"o{number}", "Phone", "ann", "1.00", NOW, "card") for number in range(10)])
    eventually(lambda: len(running.purchases("ann")) == 10)
    running.process.kill()
    stack.wipe(running)
    again = stack.worker().start()
    seen = []

    def recovered() -> bool:
        answer = again.get("/v1/users/ann/purchases")
        seen.append(answer)
        return answer.status == 200

    eventually(recovered, within=60)
    *early, last = seen
    assert len(last.json["purchases"]) == 10
    assert early, "the worker answered before it was ready"
    for answer in early:
        assert (answer.status, answer.headers["Retry-After"], answer.json["code"]) == (503, "1", "recovering")
        assert answer.json["retry_after_ms"] == 1000


def test_any_of_two_workers_answers_for_any_user_and_survives_the_other(stack: Stack, running: Worker):
    second = stack.worker("second").start()
    users = [f"user-{number}" for number in range(40)]
    stack.insert(*[("o1", f"Phone {number}", user, "1.00", NOW, None) for number, user in enumerate(users)])
    second.wait_ready()
    for worker in (running, second):
        eventually(lambda worker=worker: stack.assert_equal_to_sql(worker, users), within=60)
    by_whom = {second.get(f"/v1/users/{user}/purchases").json["meta"]["worker"] for user in users}
    assert by_whom == {f"http://127.0.0.1:{worker.port}" for worker in (running, second)}
    running.process.kill()
    stack.insert(("o2", "Computer", "user-1", "1.00", NOW, None))
    eventually(lambda: stack.assert_equal_to_sql(second, users), within=60)
