"""The structures of all JSON responses. The schemas in /openapi.json are derived from them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from web.http.schemas import AssignedPartitions, Count, RecoveryState

Id = Annotated[str, Meta(min_length=1, examples=["o-1"])]
Money = Annotated[str, Meta(pattern=r"^-?[0-9]+(\.[0-9]+)?$", examples=["19.90"])]
Time = Annotated[datetime, Meta(tz=True, examples=["2026-01-31T12:00:00Z"])]
#: A time in the text of its source, which may have zeros at the end of its fraction.
TimeText = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, examples=["2026-01-31T12:00:00Z"])]
Limit = Annotated[int, Meta(ge=1, le=100)]
#: While the two sides of a pair differ it may be below 0.
BuyerCount = Annotated[int, Meta(ge=-(2**53), le=2**53)]
#: The neighbours of a product that are scored: those with the most common buyers.
MAX_NEIGHBOURS = 1_000
Window = Literal["1h", "24h", "7d"]
Role = Literal["active", "standby", "source"]
TraceOutcome = Literal["visible", "cancelled", "different"]


class RankedPurchase(Struct):
    """A purchase (one product of an order) in a list; `position` is 1 on top of the first page."""

    order_id: Id
    product_name: Id
    price: Money
    ordered_at: Time
    payment_method: str | None
    category: str | None
    position: Annotated[int, Meta(ge=1)]


class OrderItem(Struct):
    """A purchase in an order."""

    product_name: Id
    price: Money
    ordered_at: Time
    payment_method: str | None
    category: str | None


class OrderGroup(Struct):
    """An order with all of its purchases (group_by=order)."""

    order_id: Id
    ordered_at: Time
    payment_method: str | None
    items: list[OrderItem]
    total: Money


class ProductGroup(Struct):
    """A product, and the number of times that the user bought it (group_by=product)."""

    product_name: Id
    purchases: Count
    last_ordered_at: Time
    spent: Money


class ListMeta(Struct):
    """The maximum length of a list, its completeness, its age, and the worker that responded.

    `complete` is false if the list may lack rows, because older orders are still being read or
    because no worker could be asked for a part of the data.
    """

    limit: Limit
    complete: bool
    as_of: Time | None
    lag_ms: Count | None
    role: Role
    worker: str
    guarantee: Annotated[str, Meta(extra_json_schema={"enum": ["proven", "timed", "none"]})]


class PurchasesMeta(ListMeta):
    """The meta of a list of purchases: also the changes that the source cannot see."""

    unseen: tuple[Annotated[str, Meta(extra_json_schema={"enum": ["changed", "removed", "cascade"]})], ...]
    verified_at: Time | None


class PurchasesContent(Struct):
    """A user's purchases, newest first, ungrouped or in one of the two groupings."""

    user_id: Id
    purchases: list[RankedPurchase] | UnsetType = UNSET
    orders: list[OrderGroup] | UnsetType = UNSET
    products: list[ProductGroup] | UnsetType = UNSET
    next_cursor: str | UnsetType = UNSET


class UserPurchases(PurchasesContent, kw_only=True):
    """A user's purchases, newest first, ungrouped or in one of the two groupings."""

    meta: PurchasesMeta


class UserError(Struct):
    """The reason why the purchases of one of many users are not available."""

    code: str
    message: str
    retry_after_ms: Count


class UserPurchasesOrError(PurchasesContent):
    """The result for one of many users: the fields of UserPurchases, or `error`."""

    meta: PurchasesMeta | UnsetType = UNSET
    error: UserError | UnsetType = UNSET


class ManyPurchasesMeta(Struct):
    """`complete` is false if rows may be missing for any of the users."""

    limit: Limit
    complete: bool


class ManyPurchases(Struct):
    """The purchases of many users, in the order of the request."""

    users: list[UserPurchasesOrError]
    meta: ManyPurchasesMeta


class SuggestionReason(Struct, rename={"with_": "with"}):
    """The reason why a product is in a list; its fields depend on `type`."""

    type: Literal["also_bought", "same_category", "popular"]
    with_: Id | UnsetType = UNSET
    also_bought_by: Count | UnsetType = UNSET
    category: str | UnsetType = UNSET
    window: Window | UnsetType = UNSET


class Suggestion(Struct):
    """A product in a list, best first."""

    product_name: Id
    score: Annotated[float, Meta(ge=0)]
    source: Literal["co-purchase", "category", "popular"]
    reason: SuggestionReason


class CommonBuyers(Struct):
    """The products with the most common buyers of a product, and the number of these buyers."""

    product_name: Id
    neighbours: Annotated[dict[str, BuyerCount], Meta(max_length=MAX_NEIGHBOURS)]
    role: Role


class CommonBuyersOfProducts(Struct):
    """The requested products that this worker can read completely, in the order of the request.

    `recovering` are those of the others whose tables are being recovered.
    """

    products: list[CommonBuyers]
    recovering: list[Id]


class ProductNames(Struct):
    """The distinct products of a user, the one that was bought last first."""

    user_id: Id
    product_names: list[str]
    role: Role


class SimilarProducts(Struct):
    """Products that were bought together with a product."""

    product_name: Id
    similar: list[Suggestion]
    meta: ListMeta


class Recommendations(Struct):
    """Products that a user may like."""

    user_id: Id
    recommendations: list[Suggestion]
    meta: ListMeta


class UserHome(Struct):
    """The content of a user's home page.

    `recommendations` and their meta are null if they are not available.
    """

    user_id: Id
    meta: PurchasesMeta
    purchases: list[RankedPurchase]
    recommendations: list[Suggestion] | None
    recommendations_meta: ListMeta | None
    next_cursor: str | UnsetType = UNSET


class PopularProducts(Struct):
    """The products that most users bought in a time window."""

    window: Window
    products: list[Suggestion]
    meta: ListMeta


class PeriodSales(Struct):
    """Purchases of a product in the hour or day that begins at `from`."""

    from_: Time = msgspec.field(name="from")
    purchases: Count


class SalesHistory(Struct):
    """Purchases over time, oldest first; hours and days without a purchase are omitted."""

    by_hour: list[PeriodSales]
    by_day: list[PeriodSales]


class ProductTotals(Struct):
    """The sales of a product.

    `sales` is missing with LATELY_SIMILAR=0, and if the agent similar runs in another process.
    """

    product_name: Id
    purchases: Count
    revenue: Money
    sales: SalesHistory | UnsetType = UNSET


class ProductPurchase(Struct):
    """A purchase of a product, without its user."""

    ordered_at: Time
    price: Money


class ProductPurchasesMeta(Struct):
    """`complete` is false if purchases may be missing at the end of the list."""

    limit: Limit
    complete: bool


class ProductPurchases(Struct):
    """The newest purchases of a product."""

    product_name: Id
    purchases: list[ProductPurchase]
    meta: ProductPurchasesMeta
    next_cursor: str | UnsetType = UNSET


class TraceStage(Struct):
    """A stage of a purchase on its path; `ms` is the time since the previous stage."""

    stage: Literal["captured", "published", "applied"]
    at: TimeText
    ms: float | None
    event_id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    traceparent: str | UnsetType | None = UNSET
    topic: str | UnsetType = UNSET
    partition: Count | UnsetType = UNSET
    offset: Count | UnsetType = UNSET
    version: Count | UnsetType = UNSET
    worker: str | UnsetType | None = UNSET


class PurchaseTrace(Struct):
    """One product of the order: the stages of its newest version that the topics still contain."""

    product_name: str  # that of a dead letter may be invalid
    outcome: TraceOutcome
    diagnosis: str
    version: Count | None
    stages: list[TraceStage]


class TraceMeta(Struct):
    """The number of records that were read, and the time that it took."""

    records_fetched: Count
    took_ms: Annotated[float, Meta(ge=0)]


class OrderTraceResponse(Struct):
    """The path of an order; `different`: Lately differs from MySQL, `diagnosis` is the reason."""

    order_id: Id
    user_id: Id | None
    outcome: TraceOutcome
    diagnosis: str
    purchases: list[PurchaseTrace]
    meta: TraceMeta


class Liveness(Struct):
    """The process responds."""

    status: Literal["ok"]


class Readiness(Struct):
    """The worker can serve requests; the other fields are present with ?verbose."""

    status: Literal["ok"]
    recovery: RecoveryState | UnsetType = UNSET
    partitions: dict[str, AssignedPartitions] | UnsetType = UNSET
    source_problems: list[str] | UnsetType = UNSET


class TableDigest(Struct):
    """A digest of the content of a partition of a table.

    The content includes all records below the offset `position` of the source topic; null if no
    record was read yet.
    """

    table: str
    partition: Count
    position: Count | None
    keys: Count
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class LogLevelChange(Struct):
    """The level of a logger, now and before."""

    logger: str
    level: str
    before: str
    worker: str
