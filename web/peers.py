"""Routes for other workers: parts of a list of products that only the owner of a partition has."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from aiohttp.web import Request
from yarl import URL

from domain.purchases import product_names
from web.common_buyers import MAX_PRODUCTS
from web.context import WebContext
from web.http import parameters
from web.http.access import is_for_owner
from web.http.handlers import ViewResult
from web.http.parameters import USER
from web.http.routes import JSON, Parameter, Route
from web.problem_types import QUERY, ROUTED
from web.resource_names import PRODUCT, read_query_product_names
from web.routing import UNSERVED, NotServed, decode_content, problem_from_owner
from web.schemas import CommonBuyers, CommonBuyersOfProducts, ProductNames


@Route(
    "/v1/common-buyers",
    "The products with the most common buyers of some products",
    media=(JSON,),
    response=CommonBuyersOfProducts,
    parameters=(
        Parameter(
            "product_name",
            "A product; give it once per product",
            {"type": "array", "items": PRODUCT.schema, "minItems": 1, "maxItems": MAX_PRODUCTS},
            example=["Phone", "Case"],
        ),
    ),
    problems=("invalid-product-name", *QUERY),
)
async def get_common_buyers(context: WebContext, request: Request) -> CommonBuyersOfProducts:
    """Return the neighbours of products, without those that no worker can read completely now."""
    parameters.require_known(request, "product_name")
    names = read_query_product_names(request, "product_name", MAX_PRODUCTS)
    reader = context.common_buyers
    results = await reader.read_here(names) if is_for_owner(request) else await reader.read(request, names)
    products = [results.get(name) for name in names]
    recovering = [
        name
        for name, product in zip(names, products, strict=True)
        if isinstance(product, NotServed) and product.code == "recovering"
    ]
    return CommonBuyersOfProducts([product for product in products if isinstance(product, CommonBuyers)], recovering)


@Route(
    "/v1/users/{user_id}/product-names",
    "All products of a user, the newest first",
    media=(JSON,),
    response=ProductNames,
    parameters=(USER,),
    problems=("invalid-user-id", "unknown-parameter", *ROUTED),
)
def get_product_names(context: WebContext, request: Request) -> ViewResult:
    """Return the distinct products of a user."""
    parameters.require_known(request)
    return read_product_names(context, request, parameters.read_user_id(request, 3))


async def read_product_names(context: WebContext, request: Request, user: str) -> ProductNames:
    """Return the ProductNames of a user from the first source that has them.

    The sources are those of the user's purchases. Raises Problem.
    """

    async def read_table(partition: int) -> ProductNames:
        return ProductNames(user, context.by_user.product_names(user, partition), "active")

    async def read_standby(partition: int) -> ProductNames | None:
        def read() -> ProductNames:
            return ProductNames(user, context.by_user.product_names(user, partition), "standby")

        return await context.fallback.read_standby(partition, read)

    async def read_mysql(_partition: int) -> ProductNames | None:
        rows = await context.fallback.read_mysql(request, [user])
        return None if rows is None else ProductNames(user, product_names(rows.purchases[user]), "source")

    async def request_owner(request: Request, owner: URL) -> ProductNames:
        path = f"/v1/users/{quote(user, safe='')}/product-names"
        response = await context.router.fetch(request, owner, path=path)
        if response.status != HTTPStatus.OK:
            raise problem_from_owner(response.headers.get(UNSERVED, ""))
        return decode_content(response.body, ProductNames)

    response = await context.router.respond_later(
        request, "by_user", user.encode(), read_table, request_owner, (read_standby, read_mysql)
    )
    assert isinstance(response, ProductNames), "each source returns ProductNames"
    return response
