"""The routes of a worker, in the order of the API document."""

from __future__ import annotations

from web import (
    admin,
    assets,
    docs,
    health,
    home,
    operator_page,
    peers,
    product_page,
    products,
    purchases,
    purchases_many,
    purchases_stream,
    similar,
    tables,
    trace,
)
from web.context import WebContext
from web.http.routes import View

VIEWS: tuple[View[WebContext], ...] = (
    purchases.get_purchases,
    products.get_product_sales,
    purchases_stream.stream_purchases,
    similar.get_recommendations,
    home.get_home,
    purchases_many.get_many_purchases,
    similar.get_similar_products,
    products.get_product_purchases,
    trace.get_order_trace,
    similar.get_popular_products,
    peers.get_common_buyers,
    peers.get_product_names,
    home.get_front_page,
    home.get_home_page,
    product_page.get_product_page,
    product_page.get_product_page_by_query,
    operator_page.get_operator_page,
    assets.get_style_sheet,
    assets.get_script,
    health.get_liveness,
    health.get_readiness,
    health.get_metrics,
    docs.get_openapi,
    docs.get_docs_page,
    tables.get_table_content,
    tables.get_table_digest,
    admin.set_log_level,
)
