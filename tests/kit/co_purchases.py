"""Products that users buy together: a shop full of them, what a worker answers, and what SQL counts."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from math import sqrt
from urllib.parse import quote

from tests.kit.background import beside
from tests.kit.orders import NOW, buy, cancel, change_or_remove
from tests.kit.stack import Stack, Worker

USERS = [f"user-{number}" for number in range(120)] + ["a/b", "ünïcode 😀", "50%"]
PRODUCTS = [f"Phone {number}" for number in range(22)] + ["A/C <b>&", "té", "popular"]
ORDERS = 1_000
#: As many rows as a request may ask for: more than there are products.
MAX_ROWS = 100


def similar_products(worker: Worker, product: str, **query: object) -> list[dict]:
    """The rows of /v1/products/{product}/similar."""
    answer = worker.get(f"/v1/products/{quote(product, safe='')}/similar{_encode(query)}")
    assert answer.status == 200, answer
    assert answer.json["product_name"] == product
    return answer.json["similar"]


def recommended_products(worker: Worker, user: str, **query: object) -> list[dict]:
    """The rows of /v1/users/{user}/recommendations."""
    answer = worker.get(f"/v1/users/{quote(user, safe='')}/recommendations{_encode(query)}")
    assert answer.status == 200, answer
    return answer.json["recommendations"]


def _encode(query: dict[str, object]) -> str:
    return "?" + "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())


def product_names(rows: list[dict]) -> list[str]:
    """The products of similar or recommended rows."""
    return [row["product_name"] for row in rows]


def also_bought(worker: Worker, product: str) -> dict[str, int]:
    """Product -> how many users have it and this one."""
    rows = similar_products(worker, product, fallback="none", limit=MAX_ROWS)
    return {row["product_name"]: row["reason"]["also_bought_by"] for row in rows}


def place_random_orders(stack: Stack, dice: random.Random, orders: int = ORDERS) -> None:
    """Orders with changes, moves and removals between."""
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        placed = []
        for number in range(orders):
            at, user = NOW - timedelta(minutes=dice.randrange(20_000)), dice.choice(USERS)
            for product in dice.sample(PRODUCTS, dice.choice([1, 1, 2, 3])):
                line = (f"o{number:05}", product)
                cursor.execute(
                    "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at)"
                    " VALUES (%s, %s, %s, 1, %s)",
                    (*line, user, at),
                )
                placed.append(line)
            for _ in range(dice.choice([0, 0, 1])):
                change_or_remove(cursor, dice, placed)
            connection.commit()


def read_baskets(stack: Stack) -> dict[str, set[str]]:
    """User -> products in SQL."""
    baskets = defaultdict(set)
    for user, product in stack.select("SELECT DISTINCT user_id, product_name FROM orders"):
        baskets[user].add(product)
    return baskets


def read_pairs(stack: Stack) -> dict[str, dict[str, int]]:
    """Product -> product -> users who have both in SQL."""
    pairs = defaultdict(dict)
    for product, other, users in stack.select(
        "SELECT a.product_name, b.product_name, COUNT(*)"
        " FROM (SELECT DISTINCT user_id, product_name FROM orders) a"
        " JOIN (SELECT DISTINCT user_id, product_name FROM orders) b"
        " ON a.user_id = b.user_id AND a.product_name <> b.product_name GROUP BY 1, 2"
    ):
        pairs[product][other] = users
    return pairs


def assert_co_purchases_equal_sql(stack: Stack, worker: Worker) -> None:
    """Every count, score and rank equals SQL, and nobody is recommended a product that they have."""
    baskets, pairs = read_baskets(stack), read_pairs(stack)
    buyers = {product: sum(product in basket for basket in baskets.values()) for product in PRODUCTS}
    for product in PRODUCTS:
        expected = sorted(
            (-round(users / sqrt(buyers[product] * buyers[other]), 6), other, users)
            for other, users in pairs[product].items()
        )
        rows = similar_products(worker, product, fallback="none", limit=MAX_ROWS)
        answered = [(-row["score"], row["product_name"], row["reason"]["also_bought_by"]) for row in rows]
        assert answered == expected, product
    for user in USERS[::10]:
        rows = recommended_products(worker, user, limit=MAX_ROWS)
        assert len(set(product_names(rows))) == len(rows)
        assert not set(product_names(rows)) & baskets[user]
        assert all(pairs[row["reason"]["with"]][row["product_name"]] == row["reason"]["also_bought_by"]
                   for row in rows if row["source"] == "co-purchase")  # fmt: skip
        everything = recommended_products(worker, user, limit=MAX_ROWS, exclude="none")
        assert set(product_names(everything)) <= set(PRODUCTS)


def assert_all_equal_to_sql(stack: Stack, worker: Worker) -> None:
    """Every user's list and every product's totals are what SQL says."""
    bought = stack.truths()
    for user in bought.keys() | set(USERS):
        assert worker.purchases(user) == bought[user], user
    for name, totals in stack.product_truth().items():
        # That name is another route's.
        assert name == "popular" or worker.totals(name) == totals, name


@contextmanager
def trading(stack: Stack, at_once: int = 1) -> Iterator[None]:
    """Orders come, `at_once` twenty times a second, change and go."""
    dice = random.Random(5)

    def trade(ended: threading.Event) -> None:
        number = 0
        while not ended.wait(0.05):
            number += 1
            bought = [(dice.choice(USERS), dice.choice(PRODUCTS)) for _ in range(at_once)]
            buy(stack, *bought, at=NOW - timedelta(seconds=number))
            if number % 3 == 0:
                cancel(stack, dice.choice(USERS), dice.choice(PRODUCTS))
            if number % 5 == 0:
                stack.execute("UPDATE orders SET price = price + 1 WHERE user_id = %s LIMIT 2", (dice.choice(USERS),))

    with beside(trade):
        yield
