"""Every route in one place: who may ask, what it takes, what it answers, what can go wrong.

Access is checked by it, the header Accept is answered by it, and /openapi.json is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from aiohttp.web import Request
from msgspec import Struct

from web.http import schemas

JSON, HTML, TEXT, EVENTS = "application/json", "text/html", "text/plain", "text/event-stream"
MSGPACK = "application/msgpack"


class Access(Enum):
    """Who may ask with LATELY_AUTH=token; without tokens everybody, but nobody for ADMIN."""

    OPEN = "everybody"
    OWN = "a user about their own data, an operator about all"
    OPERATOR = "an operator"
    ADMIN = "an operator, with LATELY_AUTH=token only"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a route; `example` is a value that works."""

    name: str
    help: str
    schema: dict
    where: str = "query"
    example: object = None


@dataclass(frozen=True)
class Route:
    """What docs and middlewares have to know of a route; `answer` is the shape of its JSON."""

    summary: str
    access: Access = Access.OWN
    media: tuple[str, ...] = (JSON, HTML)
    answer: type[Struct] | type[dict] = dict
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[str, ...] = ()
    method: str = "get"
    body: str | None = None
    #: Headers of its answer; with an ETag it answers 304, too.
    headers: tuple[str, ...] = ()
    #: Whether a user's token opens it only where the query names that user.
    names_user: bool = False
    tags: tuple[str, ...] = field(default=("data",))


#: Code of a problem -> its status, and what it says.
PROBLEMS = {
    "bad-request": (400, "it is not HTTP as it should be"),
    "invalid-user-id": (400, "no user id can look like this"),
    "invalid-order-id": (400, "no order id can look like this"),
    "invalid-product-name": (400, "no product name can look like this"),
    "invalid-parameter": (400, "`errors` names the parameter and what it may be"),
    "unknown-parameter": (400, "`detail` lists those that there are"),
    "invalid-cursor": (400, "the cursor was not made by this call"),
    "malformed-json": (400, "the body is not JSON"),
    "token-needed": (401, "with `WWW-Authenticate: Bearer`"),
    "invalid-token": (401, "the token is wrong or has expired"),
    "not-your-data": (403, "the token is another user's"),
    "operators-only": (403, "an operator's token is needed"),
    "not-found": (404, "there is nothing at this path"),
    "unknown-product": (404, "nobody bought a product of this name"),
    "unknown-order": (404, "no trace of the order; `detail` says where it was looked for"),
    "method-not-allowed": (405, "with `Allow`"),
    "not-acceptable": (406, "nothing that `Accept` asks for"),
    "request-timeout": (408, "the body took too long"),
    "body-too-large": (413, "a body has at most 64 KiB"),
    "line-too-long": (414, "a request line has at most 8 KiB"),
    "unsupported-media-type": (415, "the body is not `application/json`"),
    "expectation-failed": (417, "an `Expect` other than `100-continue`"),
    "invalid-body": (422, "`errors` has a pointer to the field"),
    "rate-limited": (429, "more than `LATELY_RATE_PER_S`; with `Retry-After`"),
    "headers-too-large": (431, "a header has at most 8 KiB, a request at most 100 of them"),
    "internal-error": (500, "the log has the request's id"),
    "not-ready": (503, "the worker recovers or waits for its group"),
    "agent-elsewhere": (421, "this process does not run the agent that is needed, see LATELY_AGENTS"),
    "no-progress": (503, "the worker has records to read, and reads none"),
    "recovery-stalled": (503, "the tables are to be recovered, and nothing moves"),
    "kafka-away": (503, "Kafka does not answer"),
    "source-silent": (503, "no source says how it stands"),
    "recovering": (503, "the tables are being recovered, ask again; with `Retry-After`"),
    "owner-away": (503, "the worker that has this user or product does not answer; with `Retry-After`"),
    "too-stale": (503, "the data is older than `max_lag_ms`; with `Retry-After`"),
    "source-away": (503, "MySQL has to be asked, and does not answer; with `Retry-After`"),
    "log-away": (503, "Kafka has to be asked, and does not answer; with `Retry-After`"),
    "too-many-streams": (503, "the worker has `LATELY_STREAMS` streams open; with `Retry-After`"),
    "not-up-to-position": (503, "`after_order` was not there within `wait_ms`; with `Retry-After`"),
    "routing-loop": (508, "a request that was forwarded once arrived at the wrong worker again"),
}

_ROUTED = ("agent-elsewhere", "recovering", "owner-away", "routing-loop")
_QUERY = ("unknown-parameter", "invalid-parameter")

USER = Parameter(
    "user_id", "the user's id", {"type": "string", "minLength": 1, "maxLength": 128}, where="path", example="ann"
)
PRODUCT = Parameter(
    "product_name", "the product's name", {"type": "string", "minLength": 1, "maxLength": 1024}, "path", "Phone"
)
LIMIT = Parameter("limit", "how many at most; above 100 counts as 100", {"type": "integer", "minimum": 1}, example=5)
CURSOR = Parameter("cursor", "where to go on: `next_cursor` of the page before", {"type": "string"})
_HEX = {"type": "string", "pattern": "^([0-9a-f]{2})*$"}
_TIME = {"type": "string", "format": "date-time"}
_LABEL = {"type": "string", "minLength": 1, "maxLength": 255}
SELECTION = (
    LIMIT,
    Parameter("group_by", "rows are orders or products", {"type": "string", "enum": ["order", "product"]}),
    Parameter("since", "ordered then or later", _TIME, example="2026-01-01T00:00:00Z"),
    Parameter("until", "ordered before", _TIME, example="2027-01-01T00:00:00Z"),
    Parameter("payment_method", "paid in this way", _LABEL),
)
FRESHNESS = (
    Parameter("max_lag_ms", "503 too-stale rather than older", {"type": "integer", "minimum": 0}),
    Parameter("after_order", "answer once this order has arrived", _LABEL),
    Parameter("wait_ms", "how long to wait for it", {"type": "integer", "minimum": 0, "maximum": 5000}),
    Parameter(
        "consistency", "`source` asks MySQL", {"type": "string", "enum": ["any", "active", "source"]}, example="any"
    ),
)
PARTITION = (
    Parameter("table", "the table's name", {"type": "string", "maxLength": 64}, "path", "by_user"),
    Parameter("partition", "its number", {"type": "string", "maxLength": 9}, "path", "0"),
)
WINDOW = Parameter("window", "how far back", {"type": "string", "enum": ["1h", "24h", "7d"]}, example="24h")

ROUTES = {
    "/v1/users/{user_id}/purchases": Route(
        "The user's newest purchases; none for a user never seen",
        answer=schemas.Purchases,
        headers=("ETag", "Link"),
        parameters=(USER, *SELECTION, CURSOR, *FRESHNESS),
        problems=(
            *("invalid-user-id", "invalid-cursor", *_QUERY, *_ROUTED),
            *("too-stale", "not-up-to-position", "source-away"),
        ),
    ),
    "/v1/products/{product_name}": Route(
        "Number of purchases and revenue of a product",
        answer=schemas.ProductTotals,
        headers=("ETag",),
        parameters=(PRODUCT,),
        problems=("invalid-product-name", "unknown-parameter", "unknown-product", *_ROUTED),
    ),
    "/v1/users/{user_id}/purchases/stream": Route(
        "The user's purchases as they happen (server-sent events)",
        media=(EVENTS,),
        parameters=(
            USER,
            *SELECTION,
            Parameter("Last-Event-ID", "the last event seen", {"type": "string"}, where="header"),
        ),
        problems=("invalid-user-id", *_QUERY, *_ROUTED, "too-many-streams"),
    ),
    "/v1/users/{user_id}/recommendations": Route(
        "What the user may like, each with its reason",
        answer=schemas.Recommendations,
        headers=("ETag",),
        parameters=(
            USER,
            LIMIT,
            Parameter("exclude", "what is left out", {"type": "string", "enum": ["purchased", "none"]}),
        ),
        problems=("invalid-user-id", *_QUERY, *_ROUTED, "not-found"),
    ),
    "/v1/users/{user_id}/home": Route(
        "Purchases and recommendations in one answer",
        answer=schemas.Home,
        headers=("ETag",),
        parameters=(USER, LIMIT),
        problems=("invalid-user-id", *_QUERY, *_ROUTED),
    ),
    "/v1/purchases": Route(
        "The purchases of up to 100 users in one answer",
        answer=schemas.ManyPurchases,
        headers=("ETag",),
        parameters=(
            Parameter(
                "user_id",
                "a user's id; give it once per user",
                {"type": "array", "items": USER.schema, "minItems": 1, "maxItems": 100},
                example=["ann", "bob"],
            ),
            *SELECTION,
        ),
        problems=("invalid-user-id", *_QUERY, *_ROUTED),
    ),
    "/v1/products/{product_name}/similar": Route(
        "Products that were bought by the same users",
        answer=schemas.Similar,
        headers=("ETag",),
        parameters=(
            PRODUCT,
            LIMIT,
            Parameter(
                "intent",
                "`complementary`: of other categories only",
                {"type": "string", "enum": ["related", "complementary"]},
            ),
            Parameter("for_user", "leave out what this user has", USER.schema, example="ann"),
            Parameter("fallback", "when too little is known", {"type": "string", "enum": ["popular", "none"]}),
        ),
        problems=("invalid-product-name", "invalid-user-id", "unknown-product", "not-found", *_QUERY, *_ROUTED),
    ),
    "/v1/products/{product_name}/purchases": Route(
        "The newest purchases of a product, without users",
        answer=schemas.ProductPurchases,
        headers=("ETag", "Link"),
        parameters=(PRODUCT, LIMIT, CURSOR),
        problems=("invalid-product-name", "invalid-cursor", "unknown-product", "not-found", *_QUERY, *_ROUTED),
    ),
    "/v1/orders/{order_id}/trace": Route(
        "The life of an order, and in one sentence why it is not visible",
        answer=schemas.Trace,
        parameters=(
            Parameter(
                "order_id", "the order's id", {"type": "string", "minLength": 1, "maxLength": 255}, "path", "o-1"
            ),
            Parameter("user_id", "whose order it is; a user's token needs it", USER.schema, example="ann"),
        ),
        problems=(
            *("invalid-order-id", "invalid-user-id", "unknown-parameter", "unknown-order", *_ROUTED),
            *("source-away", "log-away"),
        ),
        names_user=True,
    ),
    "/v1/products/popular": Route(
        "What is bought most",
        answer=schemas.Popular,
        headers=("ETag",),
        parameters=(WINDOW, LIMIT),
        problems=(*_QUERY, *_ROUTED, "not-found"),
    ),
    "/": Route(
        "A form that asks for a user, and the way to the user's page",
        Access.OPEN,
        (HTML,),
        parameters=(Parameter("user_id", "303 to the page of this user", USER.schema),),
        problems=("invalid-user-id",),
        tags=("pages",),
    ),
    "/users/{user_id}": Route(
        "The user's home page",
        media=(HTML,),
        parameters=(USER, CURSOR),
        problems=("invalid-user-id", "invalid-cursor", *_QUERY, *_ROUTED),
        tags=("pages",),
    ),
    "/products/{product_name}": Route(
        "The page of a product",
        media=(HTML,),
        parameters=(PRODUCT,),
        problems=("invalid-product-name", "unknown-parameter", "unknown-product", *_ROUTED),
        tags=("pages",),
    ),
    "/products": Route(
        "The same for a product whose name no path can have (`.` and `..`)",
        media=(HTML,),
        parameters=(Parameter("name", "the product's name", PRODUCT.schema, example="Phone"),),
        problems=("invalid-product-name", "unknown-parameter", "unknown-product", *_ROUTED),
        tags=("pages",),
    ),
    "/operator": Route(
        "How this worker does: partitions, lag, throughput, recovery, dead letters, source",
        Access.OPERATOR,
        (HTML,),
        problems=("unknown-parameter",),
        tags=("pages",),
    ),
    "/assets/lately.css": Route("How the pages look", Access.OPEN, ("text/css",), headers=("ETag",), tags=("pages",)),
    "/assets/live.js": Route(
        "Keeps the home page up to date", Access.OPEN, ("text/javascript",), headers=("ETag",), tags=("pages",)
    ),
    "/livez": Route("Is the process alive", Access.OPEN, (JSON,), schemas.Alive, tags=("operations",)),
    "/readyz": Route(
        "May the worker answer",
        Access.OPEN,
        (JSON,),
        schemas.Ready,
        (Parameter("verbose", "also say how far the recovery is", {"type": "string"}, example=""),),
        ("unknown-parameter", "not-ready", "no-progress", "recovery-stalled", "kafka-away", "source-silent"),
        tags=("operations",),
    ),
    "/metrics": Route("Counters for Prometheus", Access.OPERATOR, (TEXT,), tags=("operations",)),
    "/openapi.json": Route("This document", Access.OPEN, (JSON,), tags=("documents",)),
    "/docs": Route("This document, for people", Access.OPEN, (HTML,), tags=("documents",)),
    "/v1/tables/{table}/{partition}": Route(
        "The committed keys and values of a partition of a table, page by page; msgpack, docs/protocol.md has its form",
        Access.OPERATOR,
        (MSGPACK,),
        parameters=(
            *PARTITION,
            Parameter("after", "go on behind this key, in hex", _HEX),
            Parameter("key", "only these keys, in hex; give it once per key", _HEX),
            Parameter("prefix", "and those that start with these bytes, in hex; the same", _HEX),
        ),
        problems=("not-found", *_QUERY, *_ROUTED),
        tags=("operations",),
    ),
    "/v1/tables/{table}/{partition}/digest": Route(
        "Number of keys and a digest of a partition of a table: equal where the content is",
        Access.OPERATOR,
        (JSON,),
        schemas.TableDigest,
        PARTITION,
        ("not-found", *_QUERY, *_ROUTED),
        tags=("operations",),
    ),
    "/v1/admin/log-level": Route(
        "Set from which level on this worker logs",
        Access.ADMIN,
        (JSON,),
        schemas.LevelSet,
        problems=(
            *("unknown-parameter", "malformed-json", "not-found", "request-timeout"),
            *("unsupported-media-type", "invalid-body"),
        ),
        method="post",
        body="LogLevel",
        tags=("operations",),
    ),
}

# Served, but not said here who may ask: then nobody but an operator may.
_UNLISTED = Route("", Access.OPERATOR, ())


def of(request: Request) -> Route | None:
    """The route of a request; None where there is nothing at its path or nothing for its method."""
    resource = request.match_info.route.resource
    return None if resource is None else ROUTES.get(resource.canonical, _UNLISTED)
