"""The whole app, in the order in which an order flows through it."""

import mode.loop  # noqa: I001 - the order of the imports is the order of the flow

from app.core import app
from app.services import lost_state
from agents import by_user, by_product, baskets, similar
from tables import by_user as by_user_table, product_partials, by_product as by_product_table
from tables import baskets as baskets_table, similar as similar_table
from app.services import daily_reports
from app import selection
from web import (
    purchases,
    purchases_many,
    purchases_stream,
    similar as similar_routes,
    products,
    product_page,
    trace,
    home,
    assets,
    operator_page,
    tables,
    health,
    admin,
    docs,
)

selection.select()

# A tenth more queries a second than with asyncio's own loop (bench/results.md).
mode.loop.use("uvloop")

__all__ = [
    "app", "lost_state",
    "by_user", "by_product", "baskets", "similar",
    "daily_reports",
    "by_user_table", "product_partials", "by_product_table", "baskets_table", "similar_table",
    "purchases", "purchases_many", "purchases_stream", "similar_routes", "products", "product_page", "trace", "home",
    "assets", "operator_page", "tables", "health", "admin", "docs",
]  # fmt: skip
