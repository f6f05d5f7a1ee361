"""The shape of every JSON answer; the schemas of /openapi.json are made of these."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Id = Annotated[str, Meta(min_length=1, examples=["o-1"])]
Money = Annotated[str, Meta(pattern=r"^-?[0-9]+(\.[0-9]+)?$", examples=["19.90"])]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, examples=["2026-01-31T12:00:00Z"])]
Count = Annotated[int, Meta(ge=0)]


class Purchase(Struct):
    """One product of one order."""

    order_id: Id
    product_name: Id
    price: Money
    ordered_at: Time
    payment_method: str | None
    category: str | None


class RankedPurchase(Purchase):
    """A purchase in a list; `position` counts from 1 on the first page."""

    position: Annotated[int, Meta(ge=1)]


class Item(Struct):
    """A purchase in an order."""

    product_name: Id
    price: Money
    ordered_at: Time
    payment_method: str | None
    category: str | None


class Order(Struct):
    """An order with all of its purchases (group_by=order)."""

    order_id: Id
    ordered_at: Time
    payment_method: str | None
    items: list[Item]
    total: Money


class BoughtProduct(Struct):
    """A product, and how often the user bought it (group_by=product)."""

    product_name: Id
    purchases: Count
    last_ordered_at: Time
    spent: Money


class PurchasesMeta(Struct):
    """What the list is worth: how long it may be, whether anything is missing, how fresh it is, and who answered."""

    limit: Annotated[int, Meta(ge=1, le=100)]
    complete: bool
    as_of: Time | None
    lag_ms: Count | None
    guarantee: Literal["proven", "timed", "none"]
    unseen: list[Literal["changed", "removed"]]
    verified_at: Time | None
    role: Literal["active", "standby", "source"]
    worker: str


class Purchases(Struct):
    """A user's purchases, newest first, or one of the two ways to group them."""

    user_id: Id
    meta: PurchasesMeta
    purchases: list[RankedPurchase] | UnsetType = UNSET
    orders: list[Order] | UnsetType = UNSET
    products: list[BoughtProduct] | UnsetType = UNSET
    next_cursor: str | UnsetType = UNSET


class UserFault(Struct):
    """Why nothing can be said of one user of many."""

    code: str
    message: str
    retry_after_ms: Count


class UsersPart(Struct):
    """What is said of one user of many: Purchases, or `error`."""

    user_id: Id
    meta: PurchasesMeta | UnsetType = UNSET
    purchases: list[RankedPurchase] | UnsetType = UNSET
    orders: list[Order] | UnsetType = UNSET
    products: list[BoughtProduct] | UnsetType = UNSET
    next_cursor: str | UnsetType = UNSET
    error: UserFault | UnsetType = UNSET


class UsersMeta(Struct):
    """`complete` is false when something may be missing for any of the users."""

    limit: Annotated[int, Meta(ge=1, le=100)]
    complete: bool


class ManyPurchases(Struct):
    """The purchases of many users, in the order in which they were asked for."""

    users: list[UsersPart]
    meta: UsersMeta


class Reason(Struct, rename={"with_": "with"}):
    """Why a product is in a list; which fields there are depends on `type`."""

    type: Literal["also_bought", "same_category", "popular"]
    with_: Id | UnsetType = UNSET
    also_bought_by: Count | UnsetType = UNSET
    category: str | UnsetType = UNSET
    window: Literal["1h", "24h", "7d"] | UnsetType = UNSET


class Suggestion(Struct):
    """A product in a list, best first."""

    product_name: Id
    score: Annotated[float, Meta(ge=0)]
    source: Literal["co-purchase", "category", "popular"]
    reason: Reason


class ListMeta(Struct):
    """How long the list may be."""

    limit: Annotated[int, Meta(ge=1, le=100)]


class Similar(Struct):
    """What goes with a product."""

    product_name: Id
    similar: list[Suggestion]
    meta: ListMeta


class Recommendations(Struct):
    """What a user may like."""

    user_id: Id
    recommendations: list[Suggestion]
    meta: ListMeta


class Home(Struct):
    """All that the home page of a user shows; `recommendations` is null where they cannot be had now."""

    user_id: Id
    meta: PurchasesMeta
    purchases: list[RankedPurchase]
    recommendations: list[Suggestion] | None
    next_cursor: str | UnsetType = UNSET


class Popular(Struct):
    """What most users bought in a window of time."""

    window: Literal["1h", "24h", "7d"]
    products: list[Suggestion]
    meta: ListMeta


class Hour(Struct):
    """Purchases of a product in the hour that begins at `from`."""

    purchases: Count
    from_: Time = msgspec.field(name="from")


class Sales(Struct):
    """Purchases over time, the oldest first; hours and days without any are left out."""

    by_hour: list[Hour]
    by_day: list[Hour]


class ProductTotals(Struct):
    """How a product sells; `sales` is not there with LATELY_SIMILAR=0, nor where the agent similar does not run."""

    product_name: Id
    purchases: Count
    revenue: Money
    sales: Sales | UnsetType = UNSET


class ProductPurchase(Struct):
    """A purchase of a product, of which nobody is told who made it."""

    ordered_at: Time
    price: Money


class ProductPurchasesMeta(Struct):
    """`complete` is false when purchases may be missing at the end of the list."""

    limit: Annotated[int, Meta(ge=1, le=100)]
    complete: bool


class ProductPurchases(Struct):
    """The newest purchases of a product."""

    product_name: Id
    purchases: list[ProductPurchase]
    meta: ProductPurchasesMeta
    next_cursor: str | UnsetType = UNSET


class Stage(Struct):
    """A stage of a purchase on its way; `ms` is the time since the one before."""

    stage: Literal["captured", "published", "applied"]
    at: Time
    ms: float | None
    event_id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    traceparent: str | UnsetType | None = UNSET
    topic: str | UnsetType = UNSET
    partition: Count | UnsetType = UNSET
    offset: Count | UnsetType = UNSET
    version: Count | UnsetType = UNSET
    worker: str | UnsetType | None = UNSET


class TracedPurchase(Struct):
    """One product of the order: the stages of its newest version, as far as the topics still have them."""

    product_name: str  # of a dead letter it may be none that there can be
    outcome: Literal["visible", "cancelled", "different"]
    diagnosis: str
    version: Count | None
    stages: list[Stage]


class TraceMeta(Struct):
    """How many records were read for it, and how long it took."""

    records_fetched: Count
    took_ms: Annotated[float, Meta(ge=0)]


class Trace(Struct):
    """The life of an order: `different` is what is not shown as MySQL has it, and `diagnosis` says why."""

    order_id: Id
    user_id: Id | None
    outcome: Literal["visible", "cancelled", "different"]
    diagnosis: str
    purchases: list[TracedPurchase]
    meta: TraceMeta


class Alive(Struct):
    """The process answers."""

    status: Literal["ok"]


class Recovery(Struct):
    """How far the tables are recovered: changelog records read, and of how many."""

    done: Count
    total: Count
    records_per_second: Annotated[float, Meta(ge=0)]
    seconds: Annotated[float, Meta(ge=0)]
    rebuilding: str


class Partitions(Struct):
    """The partitions of one table that this worker has."""

    active: list[int]
    standby: list[int]
    #: Of the copies those that it makes in order to take over.
    warming: list[int]


class Ready(Struct):
    """The worker may answer; the rest with ?verbose."""

    status: Literal["ok"]
    recovery: Recovery | UnsetType = UNSET
    partitions: dict[str, Partitions] | UnsetType = UNSET


class TableDigest(Struct):
    """What a partition of a table holds, as one digest.

    It has all below the offset `position` of its source topic; null: nothing was read yet.
    """

    table: str
    partition: Count
    position: Count | None
    keys: Count
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class LevelSet(Struct):
    """The level of a logger, now and before."""

    logger: str
    level: str
    before: str
    worker: str


class Fault(Struct):
    """What is wrong, and with which parameter, or where in the body (RFC 6901)."""

    message: str
    parameter: str | UnsetType = UNSET
    pointer: str | UnsetType = UNSET


class ProblemDetails(Struct):
    """Every error (RFC 9457). `code` is for programs, `detail` for people, `instance` is the request's id.

    `reasons` has the codes of all that is stuck, of which `code` is the first.
    """

    type: Annotated[str, Meta(pattern="^urn:lately:problem:")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    instance: str
    code: str
    errors: list[Fault] | UnsetType = UNSET
    retry_after_ms: Count | UnsetType = UNSET
    reasons: list[str] | UnsetType = UNSET
    recovery: Recovery | UnsetType = UNSET
    partitions: dict[str, Partitions] | UnsetType = UNSET


def schemas() -> dict[str, dict]:
    """JSON Schema (2020-12) of all of them, by name."""
    structs = [
        one for one in globals().values() if isinstance(one, type) and issubclass(one, Struct) and one is not Struct
    ]
    return msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")[1]
