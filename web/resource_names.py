"""The names of products and orders in a path or a query."""

from __future__ import annotations

from aiohttp.web import Request

from domain.events import MAX_ORDER_ID_BYTES, MAX_PRODUCT_NAME, is_valid_order_id
from web.http.parameters import invalid_parameter, read_path_text, read_query_texts
from web.http.problems import Problem
from web.http.routes import Parameter

PRODUCT = Parameter(
    "product_name", "The product's name", {"type": "string", "minLength": 1, "maxLength": 1024}, "path", "Phone"
)
ORDER = Parameter("order_id", "The order's id", {"type": "string", "minLength": 1, "maxLength": 255}, "path", "o-1")


def read_product_name(request: Request, segment: int) -> str:
    """Return the product name in a path segment. Raises Problem 400 invalid-product-name."""
    return _check_product_name(read_path_text(request, segment), "product_name")


def read_query_product_name(request: Request, name: str) -> str:
    """Return the product name in the query parameter `name`.

    Raises Problem 400 invalid-product-name.
    """
    values = read_query_texts(request, name)
    return _check_product_name(values[0] if len(values) == 1 else None, name)


def read_query_product_names(request: Request, name: str, maximum: int) -> list[str]:
    """Return the 1 to `maximum` product names in the query parameters `name`.

    Raises Problem 400 invalid-product-name, invalid-parameter.
    """
    values = read_query_texts(request, name)
    if len(values) > maximum:
        raise invalid_parameter(name, f"give at most {maximum} products")
    return [_check_product_name(value, name) for value in values or [None]]


def _check_product_name(text: str | None, parameter: str) -> str:
    if text is None or not 1 <= len(text) <= MAX_PRODUCT_NAME:
        raise Problem(
            400,
            "invalid-product-name",
            f"a product name has 1 to {MAX_PRODUCT_NAME} characters in UTF-8",
            parameter=parameter,
        )
    return text


def read_order_id(request: Request, segment: int) -> str:
    """Return the order id in path segment `segment`. Raises Problem 400 invalid-order-id."""
    text = read_path_text(request, segment)
    if text is None or not is_valid_order_id(text):
        raise Problem(
            400,
            "invalid-order-id",
            f"an order id is 1 to {MAX_ORDER_ID_BYTES} bytes of UTF-8 without control characters",
            parameter="order_id",
        )
    return text
