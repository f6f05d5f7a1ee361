"""A shop whose customers order, change their minds and cancel while things break, and what SQL says of all of it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from urllib.parse import quote

import mysql.connector

from tests.kit.background import beside
from tests.kit.stack import Stack, Worker

NOW = datetime(2026, 1, 31, 12)
USERS = [f"käufer {number}" if number % 7 == 0 else f"user-{number}" for number in range(40)]
PRODUCTS = [f"{kind} {model}" for kind in ("Phone", "Café-Mühle", "Lamp") for model in range(5)]
PAYMENTS = ("card", "paypal", None)
#: Of all transactions so many change a row, give it to another user, remove it.
CHANGED, MOVED, REMOVED = 0.15, 0.03, 0.10
LONGEST_PAUSE_S = 1.0

#: Order id, product name, price, ordered at, payment method.
Row = tuple[str, str, str, str, str | None]


class Shop:
    """Trades at a bounded rate in a thread of its own; whatever it could not commit is not in MySQL either.

    With `keep` the shop has so many orders at most: for each new one the oldest is removed.
    """

    def __init__(self, stack: Stack, seed: int, per_s: float = 60, keep: int | None = None) -> None:
        self.stack = stack
        self.keep = keep
        self.per_s = per_s
        self.committed = 0
        #: Why transactions failed, by the error's number.
        self.refused: dict[int, int] = {}
        self._dice = random.Random(seed)
        self._orders = 0

    @contextmanager
    def trading(self, per_s: float | None = None) -> Iterator[None]:
        """Trade for as long as this is entered, `per_s` transactions a second at most."""
        with beside(lambda ended: self._trade(ended, per_s or self.per_s), within_s=30):
            yield

    def _trade(self, stopping: threading.Event, per_s: float) -> None:
        while not stopping.is_set():
            try:
                with closing(self.stack.connect()) as connection, closing(connection.cursor()) as cursor:
                    while not stopping.wait(1 / per_s):
                        self._transaction(cursor)
                        connection.commit()
                        self.committed += 1
            except mysql.connector.Error as exc:
                self.refused[exc.errno] = self.refused.get(exc.errno, 0) + 1
                stopping.wait(LONGEST_PAUSE_S)

    def _transaction(self, cursor: mysql.connector.cursor.MySQLCursor) -> None:
        dice = self._dice
        roll, known = dice.random(), f"o{int(self._orders * dice.random() ** 0.3):06}"
        if roll < CHANGED:
            cursor.execute("UPDATE orders SET price = price + 1, ordered_at = ordered_at + INTERVAL %s MINUTE"
                           " WHERE order_id = %s", (dice.randrange(-60, 60), known))  # fmt: skip
        elif roll < CHANGED + MOVED:
            cursor.execute("UPDATE orders SET user_id = %s WHERE order_id = %s", (dice.choice(USERS), known))
        elif roll < CHANGED + MOVED + REMOVED:
            cursor.execute("DELETE FROM orders WHERE order_id = %s LIMIT 1", (known,))
        else:
            order, user, at = f"o{self._orders:06}", dice.choice(USERS), NOW + timedelta(seconds=self._orders // 3)
            if self.keep is not None and self._orders >= self.keep:
                cursor.execute("DELETE FROM orders WHERE order_id = %s", (f"o{self._orders - self.keep:06}",))
            self._orders += 1
            for product in dice.sample(PRODUCTS, dice.choice((1, 1, 3))):
                cursor.execute(
                    "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, payment_method)"
                    " VALUES (%s, %s, %s, %s, %s, %s)",
                    (order, product, user, dice.randrange(1, 50_000) / 100, at, dice.choice(PAYMENTS)),
                )

    # -- the truth, and what the workers say

    def truth(self) -> tuple[dict[str, list[Row]], dict[str, tuple[int, Decimal]]]:
        """All purchases of all users, newest first, and the totals of all products."""
        purchases: dict[str, list[Row]] = {user: [] for user in USERS}
        totals = dict.fromkeys(PRODUCTS, (0, Decimal(0)))
        rows = self.stack.select(
            "SELECT user_id, order_id, product_name, CAST(price AS CHAR), ordered_at, payment_method FROM orders"
        )
        for user, order, product, price, at, payment in rows:
            purchases[user].append((order, product, price, f"{at.isoformat()}Z", payment))
            count, revenue = totals[product]
            totals[product] = (count + 1, revenue + Decimal(price))
        for mine in purchases.values():
            mine.sort(key=lambda row: (row[3], row[0].encode(), row[1].encode()), reverse=True)
        return purchases, totals

    def assert_exact(self, *workers: Worker) -> None:
        """Each of these workers says exactly what SQL says: every purchase of every user, and every total."""
        purchases, totals = self.truth()
        for worker in workers:
            for user, mine in purchases.items():
                said = pages(worker, user)
                assert said == mine, f"{worker.process.name}, {user}: {differences(said, mine)}"
            for product, total in totals.items():
                assert said_of(worker, product) == total, f"{worker.process.name}, {product}: not {total}"


def pages(worker: Worker, user: str) -> list[Row]:
    """All that a worker says a user bought, page by page."""
    found, path = [], f"/v1/users/{quote(user)}/purchases?limit=100"
    cursor = ""
    while True:
        answer = worker.get(path + cursor)
        assert answer.status == 200, answer
        assert answer.json["meta"]["complete"] is True, answer
        assert answer.json["meta"]["role"] == "active", "not from a table: it proves nothing"
        for one in answer.json["purchases"]:
            found.append((one["order_id"], one["product_name"], one["price"], one["ordered_at"], one["payment_method"]))
        if "next_cursor" not in answer.json:
            return found
        cursor = f"&cursor={quote(answer.json['next_cursor'])}"


def said_of(worker: Worker, product: str) -> tuple[int, Decimal]:
    """Purchases and revenue of a product; nothing is known of one that nobody ever bought."""
    answer = worker.get(f"/v1/products/{quote(product)}")
    if answer.status == 404:
        return 0, Decimal(0)
    assert answer.status == 200, answer
    return answer.json["purchases"], Decimal(answer.json["revenue"])


def differences(said: list[Row], truth: list[Row]) -> str:
    """What is missing, too much, or twice."""
    missing, extra = set(truth) - set(said), set(said) - set(truth)
    return (
        f"{len(said)} instead of {len(truth)}, missing {sorted(missing)[:3]}, extra {sorted(extra)[:3]}, "
        f"{len(said) - len(set(said))} twice"
    )
