"""The whole app, in the order in which an order flows through it."""

from app.core import app  # noqa: I001 - the order of the imports is the order of the flow
from agents import by_user, by_product
from tables import by_user as by_user_table, product_partials, by_product as by_product_table
from web import purchases, many, live, products, home, health, admin, docs

__all__ = [
    "app",
    "by_user", "by_product",
    "by_user_table", "product_partials", "by_product_table",
    "purchases", "many", "live", "products", "home", "health", "admin", "docs",
]  # fmt: skip
