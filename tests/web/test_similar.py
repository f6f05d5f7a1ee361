"""Similar, recommended and popular products: their counts, scores, order and reasons."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from domain.co_purchases import DISTINCT_CAP
from tests.kit.co_purchases import (
    MAX_ROWS,
    also_bought,
    product_names,
    recommended_products,
    similar_products,
)
from tests.kit.event_shop import EventShop
from tests.kit.eventually import eventually
from tests.kit.orders import NOW
from tests.kit.web import WebServer


@pytest.fixture
def worker(server: WebServer) -> WebServer:
    """The server of the shop."""
    return server


def test_a_cancelled_purchase_is_unlearned_and_the_last_one_takes_the_row_with_it(shop: EventShop, worker: WebServer):
    shop.buy(("ann", "Phone"), ("ann", "Case"), ("bob", "Phone"), ("bob", "Case"))
    eventually(lambda: also_bought(worker, "Phone") == {"Case": 2}, within=20)
    # Another price, time or category is no purchase more; a second purchase of the same is none either.
    shop.change(
        lambda line: msgspec.structs.replace(
            line, price="2.00", category="x", ordered_at=line.ordered_at - timedelta(hours=1)
        )
    )
    shop.buy(("ann", "Case"), at=NOW - timedelta(days=1))
    shop.cancel("bob", "Case")
    eventually(lambda: also_bought(worker, "Phone") == {"Case": 1}, within=20)
    shop.cancel("ann", "Case")
    eventually(lambda: also_bought(worker, "Phone") == {}, within=20)
    assert product_names(similar_products(worker, "Phone")) == []
    assert also_bought(worker, "Case") == {}


def test_a_product_without_neighbours_falls_back_to_its_category_then_to_what_is_popular(
    shop: EventShop, worker: WebServer
):
    shop.buy(("ann", "Phone"), ("bob", "Phone 2"), ("eve", "Phone 3"), ("kim", "Phone 3"), category="phones")
    shop.buy(("zoe", "Laptop"), category="computers", at=NOW - timedelta(hours=30))
    phones = [
        {"product_name": "Phone 3", "score": 2, "source": "category"},
        {"product_name": "Phone 2", "score": 1, "source": "category"},
    ]
    same = {"reason": {"type": "same_category", "category": "phones"}}
    week = {"source": "popular", "reason": {"type": "popular", "window": "7d"}}
    laptop = {"product_name": "Laptop", "score": 1, **week}

    def filled() -> None:
        assert similar_products(worker, "Phone") == [*({**row, **same} for row in phones), laptop]

    eventually(filled, within=20)
    assert similar_products(worker, "Phone", fallback="none") == []
    assert product_names(similar_products(worker, "Phone", for_user="bob", limit=1)) == ["Phone 3"]
    unknown = worker.get("/v1/products/Nothing/similar")
    assert (unknown.status, unknown.json["code"]) == (404, "unknown-product")
    assert worker.get("/v1/products/Nothing/similar?fallback=none").status == 404
    assert similar_products(worker, "Nothing", fallback="popular", for_user="eve") == [
        laptop,
        {"product_name": "Phone", "score": 1, **week},
        {"product_name": "Phone 2", "score": 1, **week},
    ]
    assert product_names(recommended_products(worker, "nobody yet")) == ["Phone 3", "Laptop", "Phone", "Phone 2"]
    day = worker.get("/v1/products/popular?window=24h&limit=2").json
    assert (day["window"], product_names(day["products"])) == ("24h", ["Phone 3", "Phone"])
    assert product_names(worker.get("/v1/products/popular").json["products"]) == [
        "Phone 3",
        "Laptop",
        "Phone",
        "Phone 2",
    ]


def test_a_category_is_that_of_what_is_left_and_equal_scores_go_by_name(shop: EventShop, worker: WebServer):
    shop.buy(("ann", "Zebra"), ("bob", "Lion"), category="zoo")
    shop.buy(("cleo", "Atlas"), category="art")
    shop.buy(("dan", "Zebra"), category="mistake", at=NOW + timedelta(days=1))
    # Three products that u has, with twelve owners each, of whom some have A or B.
    pairs = [(f"{seed}-{number}", seed) for seed in ("S0", "S1", "S2") for number in range(11)]
    pairs += [("u", seed) for seed in ("S0", "S1", "S2")]
    for product, common in {"B": (1, 4, 3), "A": (1, 3, 4)}.items():
        pairs += [(f"S{seed}-{number}", product) for seed, most in enumerate(common) for number in range(most)]
    shop.buy(*pairs)

    def alike() -> list[str]:
        rows = similar_products(worker, "Zebra", limit=MAX_ROWS)
        return [row["product_name"] for row in rows if row["source"] == "category"]

    def strongest() -> list[tuple]:
        return [(row["product_name"], row["score"]) for row in recommended_products(worker, "u", limit=2)]

    eventually(lambda: strongest() == [("A", 0.816496), ("B", 0.816496)], within=20)
    eventually(lambda: alike() == [], within=20)
    shop.delete(lambda line: line.user_id == "dan")
    eventually(lambda: alike() == ["Lion"], within=20)
    shop.update(lambda line: line.product_name == "Zebra", category="art")
    eventually(lambda: alike() == ["Atlas"], within=20)
    shop.update(lambda line: line.product_name == "Zebra", category=None)
    eventually(lambda: alike() == [], within=20)


def test_one_user_who_buys_everything_counts_no_more_than_documented(shop: EventShop, worker: WebServer):
    shop.buy(("ann", "Phone"), ("ann", "Case"), ("bob", "Phone"), ("bob", "Case"), at=NOW - timedelta(hours=2))
    lots = [("bot", f"Junk {number:03}") for number in range(200)]
    shop.buy(("bot", "Phone"), *lots * 5)
    newest = [f"Junk {number:03}" for number in range(200 - DISTINCT_CAP + 1, 200)]

    def settled() -> None:
        assert worker.totals("Junk 199")[0] == 5
        rows = similar_products(worker, "Phone", fallback="none", limit=MAX_ROWS)
        assert product_names(rows) == ["Case", *newest]

    eventually(settled, within=30)
    eventually(lambda: len(also_bought(worker, "Junk 199")) == DISTINCT_CAP - 1)
    assert also_bought(worker, "Junk 000") == {}
    # All that it ever bought is left out, not only what it counts for.
    assert product_names(recommended_products(worker, "bot", limit=MAX_ROWS)) == ["Case"]
    assert worker.get("/v1/products/popular?limit=1").json["products"][0]["score"] == 3


def test_what_everybody_buys_does_not_outrank_what_goes_with_it(shop: EventShop, worker: WebServer):
    # The example of docs/protocol.md.
    buyers = [f"user-{number}" for number in range(100)]
    shop.buy(*((user, "Bag") for user in buyers))
    shop.buy(*((user, "Camera") for user in buyers[:10]), *((user, "Lens") for user in buyers[:8]))

    def ranked() -> None:
        rows = similar_products(worker, "Camera", fallback="none")
        found = [(row["product_name"], row["score"], row["reason"]["also_bought_by"]) for row in rows]
        assert found == [("Lens", 0.894427, 8), ("Bag", 0.316228, 10)]

    eventually(ranked, within=20)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/products/X/similar?fallback=some", 400, "invalid-parameter"),
        ("/v1/products/X/similar?fallback=none&fallback=none", 400, "invalid-parameter"),
        ("/v1/products/X/similar?limit=0", 400, "invalid-parameter"),
        ("/v1/products/X/similar?for_user=", 400, "invalid-user-id"),
        ("/v1/products/X/similar?for_user=%ff", 400, "invalid-user-id"),
        ("/v1/products/X/similar?window=1h", 400, "unknown-parameter"),
        ("/v1/products//similar", 400, "invalid-product-name"),
        ("/v1/products/%ff/similar", 400, "invalid-product-name"),
        ("/v1/users/%00/recommendations", 400, "invalid-user-id"),
        ("/v1/users/ann/recommendations?exclude=all", 400, "invalid-parameter"),
        ("/v1/products/popular?window=2h", 400, "invalid-parameter"),
        ("/v1/products/popular?fallback=none", 400, "unknown-parameter"),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_wrong(shared: WebServer, path: str, status: int, code: str):
    answer = shared.get(path)
    assert (answer.status, answer.json["code"]) == (status, code)
