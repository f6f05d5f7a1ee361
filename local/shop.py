"""A shop that sells phones and computers: it inserts orders, and sometimes changes or cancels one.

It writes only to its own table, like any shop, and does not use Lately.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeVar

from mysql.connector import MySQLConnection

Number = TypeVar("Number", int, float)

PRODUCTS = {
    "phones": [
        ("Aurora One", "499.00"), ("Aurora One Mini", "399.00"), ("Pebble 5", "249.90"), ("Pebble 5 Pro", "349.90"),
        ("Lumen Fold", "1299.00"), ("Kite SE", "179.00"),
    ],
    "computers": [
        ("Slate 13", "899.00"), ("Slate 15", "1149.00"), ("Forge Tower", "1899.00"), ("Nook Mini PC", "429.50"),
        ("Drift Chromebook", "299.00"), ("Atlas Workstation", "3499.00"),
    ],
}  # fmt: skip
#: The extras of each model; the name of one is "Pebble 5 Case".
EXTRAS = {
    "phones": [("Case", "19.90"), ("Charger", "24.90"), ("Screen Film", "9.90"), ("Headset", "59.00")],
    "computers": [("Sleeve", "29.90"), ("Dock", "149.00"), ("Mouse", "39.90"), ("Keyboard", "79.00")],
}
MODELS = [(category, product) for category, products in PRODUCTS.items() for product in products]
#: The number of favourite models of a user, and the probabilities of another model and of each
#: extra.
FAVOURITE_MODELS, OTHER_SHARE, EXTRA_SHARE = 3, 0.1, 0.2
PAYMENT_METHODS = ["card", "card", "card", "paypal", "invoice", "gift card"]
CHANGED_SHARE, REMOVED_SHARE = 0.05, 0.03
MAX_RECENT_ROWS = 1_000

TABLE = """CREATE TABLE IF NOT EXISTS orders (
  order_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  product_name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  user_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  price DECIMAL(12,2) NOT NULL,
  ordered_at DATETIME(6) NOT NULL,
  payment_method VARCHAR(64) NULL,
  category VARCHAR(64) NULL,
  PRIMARY KEY (order_id, product_name),
  KEY orders_by_user (user_id, ordered_at),
  KEY orders_by_time (ordered_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"""


@dataclass(frozen=True)
class OrderRow:
    """One row of the table orders."""

    order_id: str
    product_name: str
    user_id: str
    price: str
    ordered_at: datetime
    payment_method: str
    category: str


class Shop:
    """Places orders one at a time; equal seeds result in equal users, products and prices."""

    def __init__(self, connection: MySQLConnection, users: int, seed: int) -> None:
        self.connection = connection
        self.users = users
        self.random = random.Random(seed)  # noqa: S311 - orders of a demo, no secret
        self.run = f"{time.time_ns() // 1_000_000:x}"
        self.count = 0
        self.recent: list[OrderRow] = []

    def create_table(self) -> None:
        """Create the table of the shop if it is missing."""
        self._execute(TABLE)

    def trade(self) -> str:
        """Place an order, or change or cancel an earlier one; return a line about it."""
        dice = self.random.random()
        if self.recent and dice < REMOVED_SHARE:
            return self._cancel()
        if self.recent and dice < REMOVED_SHARE + CHANGED_SHARE:
            return self._reprice()
        return self._order()

    def _order(self) -> str:
        self.count += 1
        user = f"user-{self.random.randint(1, self.users)}"
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        payment = self.random.choice(PAYMENT_METHODS)
        lines = []
        for category, (name, price) in self._basket(user):
            lines.append(OrderRow(f"{self.run}-{self.count}", name, user, price, now, payment, category))
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, payment_method, category)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [
                    (o.order_id, o.product_name, o.user_id, o.price, o.ordered_at, o.payment_method, o.category)
                    for o in lines
                ],
            )
        self.connection.commit()
        self.recent = [*self.recent, *lines][-MAX_RECENT_ROWS:]
        return f"{user} buys {', '.join(line.product_name for line in lines)}"

    def _basket(self, user: str) -> list[tuple[str, tuple[str, str]]]:
        """Choose a model, mostly a favourite of the user, and some of its extras."""
        favourites = random.Random(user).sample(MODELS, FAVOURITE_MODELS)  # noqa: S311
        category, (model, price) = self.random.choice(MODELS if self.random.random() < OTHER_SHARE else favourites)
        extras = [extra for extra in EXTRAS[category] if self.random.random() < EXTRA_SHARE]
        return [(category, (model, price)), *((category, (f"{model} {name}", price)) for name, price in extras)]

    def _cancel(self) -> str:
        line = self.recent.pop(self.random.randrange(len(self.recent)))
        self._execute(
            "DELETE FROM orders WHERE order_id = %s AND product_name = %s", (line.order_id, line.product_name)
        )
        return f"{line.user_id} cancels {line.product_name}"

    def _reprice(self) -> str:
        line = self.random.choice(self.recent)
        self._execute(
            "UPDATE orders SET price = price * 0.9 WHERE order_id = %s AND product_name = %s",
            (line.order_id, line.product_name),
        )
        return f"{line.user_id} gets 10 % off {line.product_name}"

    def _execute(self, statement: str, values: tuple[str, ...] = ()) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values)
        self.connection.commit()


def connect(host: str, port: int, user: str, password: str, database: str) -> MySQLConnection:
    """Connect to the database `database`, and create it if it is missing."""
    connection = MySQLConnection(
        host=host, port=port, user=user, password=password, charset="utf8mb4", collation="utf8mb4_general_ci"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS `{database}` DEFAULT CHARACTER SET utf8mb4")
        cursor.execute(f"USE `{database}`")
    return connection


class BadShopSetting(Exception):
    """A SHOP_* variable has an invalid value."""


def read_shop_settings(env: Mapping[str, str]) -> tuple[int, float, int]:
    """Return SHOP_USERS, SHOP_RATE (orders per second) and SHOP_SEED. Raises BadShopSetting."""
    return (
        _read_number(env, "SHOP_USERS", int, default=50, minimum=1),
        _read_number(env, "SHOP_RATE", float, default=2.0, minimum=0.01),
        _read_number(env, "SHOP_SEED", int, default=1, minimum=0),
    )


def _read_number(
    env: Mapping[str, str], name: str, number_type: type[Number], default: Number, minimum: Number
) -> Number:
    text = env.get(name, str(default))
    try:
        value = number_type(text)
    except ValueError:
        value = None
    if value is None or not minimum <= value <= 10**9:
        raise BadShopSetting(f"{name}: {text!r} is not a number from {minimum}")
    return value


def main() -> None:
    """Place orders until a signal stops the process."""
    users, rate, seed = read_shop_settings(os.environ)
    env = os.environ
    connection = connect(
        env["LATELY_MYSQL_HOST"], int(env["LATELY_MYSQL_PORT"]), env["LATELY_MYSQL_USER"],
        env.get("LATELY_MYSQL_PASSWORD", ""), env["LATELY_MYSQL_DATABASE"],
    )  # fmt: skip
    shop = Shop(connection, users, seed)
    shop.create_table()
    start = time.monotonic()
    while True:
        print(shop.trade(), flush=True)
        shop_ahead = start + shop.count / rate - time.monotonic()
        if shop_ahead > 0:
            time.sleep(shop_ahead)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
