"""Declaration of every topic: its name, writers, readers and configuration.

app/kafka/admin.py creates and checks them.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.settings import Settings

#: Kafka's default limit of a record batch, which a broker may lower.
RECORDS = {"max.message.bytes": str(2**20 + 12)}
#: A broker may have other defaults, so everything that could delete a record is set.
FOR_EVER = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", **RECORDS}
#: A dead letter is the original record with more headers, so it may be larger than a record of
#: `orders`.
DEAD = {**FOR_EVER, "max.message.bytes": str(4 * 2**20)}
#: The maximum size of a request of any producer: a dead letter and Kafka's overhead.
MAX_REQUEST_BYTES = 5 * 2**20
#: For records that are read once and soon, and can be derived again from `orders`.
WEEK = {"cleanup.policy": "delete", "retention.ms": str(7 * 86_400_000), "retention.bytes": "-1", **RECORDS}
#: A deletion stays in the log for a day: a disk that is older is restored from the beginning.
COMPACTED = {"cleanup.policy": "compact", "delete.retention.ms": str(86_400_000), **RECORDS}
#: For a record a second of which only the newest is needed: small segments, so that the topic stays
#: small.
STATE = {**COMPACTED, "segment.bytes": str(2**20), "min.cleanable.dirty.ratio": "0.1"}

#: Header of the last record of a transaction in a changelog: the address of the worker that wrote
#: it.
WORKER = "worker"

TABLES = ("by_user", "product_partials", "by_product", "baskets", "similar", "product_sales")
#: The tables in a dump. Without its changelog, product_sales is built from `similar` by its owners.
DUMPED_TABLES = TABLES[:-1]

#: Header of records between two agents, see `origin`.
ORIGIN = "lately.origin"


@dataclass(frozen=True)
class Topic:
    """The required configuration of a topic.

    Of an existing topic, the number of partitions and the settings that could delete or refuse a
    record are checked.
    """

    name: str
    config: dict[str, str]
    #: None: LATELY_PARTITIONS
    partitions: int | None = None


def origin(partition: int, position: int) -> bytes:
    """Return the header ORIGIN of a record derived from a partition's records below `position`."""
    return b"%d@%d" % (partition, position)


class Topics:
    """All topics of one set of settings."""

    def __init__(self, settings: Settings) -> None:
        shared, own = settings.prefix, settings.group
        #: The event log: key user id, value event. Written by the source, read by agents/by_user.
        self.orders = Topic(f"{shared}orders", FOR_EVER)
        #: Totals of a product over one partition of orders; key product and partition, in the
        #: partition of the product's table. Written by agents/by_user, read by agents/by_product.
        self.product_partials = Topic(f"{own}-product-partials", COMPACTED)
        #: Purchases added and removed, in the partition of the user, without a key. Written by
        #: agents/by_user, read by agents/baskets.
        self.purchase_changes = Topic(f"{own}-purchase-changes", WEEK)
        #: The resulting changes of co-purchases; key product. Written by agents/baskets, read by
        #: agents/similar.
        self.co_purchases = Topic(f"{own}-co-purchases", WEEK)
        #: Unreadable records in their original form, with the reason in the headers. Written by the
        #: source and all agents.
        self.orders_dead = Topic(f"{shared}orders-dead", DEAD)
        #: The state of the source; key a word, value JSON. Written by the source, read by it and
        #: all workers.
        self.source_state = Topic(f"{shared}source-state", STATE, partitions=1)
        #: What the app belongs to, see app.control.identity. Written by the first process of the app.
        self.identity = Topic(f"{own}-identity", STATE, partitions=1)
        #: The changelogs of the tables: each is written and read only by its table.
        self.changelogs = tuple(Topic(f"{own}-{table}-changelog", COMPACTED) for table in TABLES)
        #: Table -> the name of the topic whose agent writes it.
        self.source_topics = {
            "by_user": self.orders.name, "product_partials": self.orders.name, "by_product": self.product_partials.name,
            "baskets": self.purchase_changes.name, "similar": self.co_purchases.name,
            "product_sales": self.co_purchases.name,
        }  # fmt: skip

    def changelog(self, table: str) -> str:
        """Return the name of a table's changelog topic."""
        return self.changelogs[TABLES.index(table)].name

    @property
    def all(self) -> tuple[Topic, ...]:
        """All topics, the changelogs last."""
        return (
            self.orders, self.product_partials, self.purchase_changes, self.co_purchases, self.orders_dead,
            self.source_state, self.identity, *self.changelogs,
        )  # fmt: skip
