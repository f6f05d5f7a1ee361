"""Declaration of every topic: its name, writers, readers and configuration (see app/kafka/admin.py for checks)."""

from __future__ import annotations

from dataclasses import dataclass

from app.settings import Settings

FOR_EVER = {"cleanup.policy": "delete", "retention.ms": "-1"}
#: A dead letter is the record as it was and its headers, so it may be larger than a record of `orders`.
DEAD = {**FOR_EVER, "max.message.bytes": str(4 * 2**20)}
#: The largest request of any producer: a dead letter, and what Kafka puts around it.
MAX_REQUEST_BYTES = 5 * 2**20
#: What is read once and soon, and can be made again from `orders`.
WEEK = {"cleanup.policy": "delete", "retention.ms": str(7 * 86_400_000)}
COMPACTED = {"cleanup.policy": "compact"}
#: A record a second, of which only the newest counts: small segments, so that little of it is kept.
STATE = {**COMPACTED, "segment.bytes": str(2**20), "min.cleanable.dirty.ratio": "0.1"}

#: Header of the last record of a transaction in a changelog: the address of the worker that wrote it.
WORKER = "worker"

TABLES = ("by_user", "product_partials", "by_product", "baskets", "similar")

#: Header of records between two agents, see `origin`.
ORIGIN = "lately.origin"


@dataclass(frozen=True)
class Topic:
    """A topic as it must be on the broker; of `config` only the cleanup policy is checked afterwards."""

    name: str
    config: dict[str, str]
    #: None: LATELY_PARTITIONS
    partitions: int | None = None


def origin(partition: int, position: int) -> bytes:
    """The header ORIGIN of a record that follows from what lies in a partition below the offset `position`."""
    return b"%d@%d" % (partition, position)


class Topics:
    """All topics of one set of settings."""

    def __init__(self, settings: Settings) -> None:
        named, group = settings.prefix, settings.group
        #: The event log: key user id, value event. Written by the source, read by agents/by_user.
        self.orders = Topic(f"{named}orders", FOR_EVER)
        #: Totals of a product over one partition of orders; key product and partition, lies where the product's table
        #: does. Written by agents/by_user, read by agents/by_product.
        self.product_partials = Topic(f"{group}-product-partials", COMPACTED)
        #: What was bought and taken back; lies where the user does, no key. Written by agents/by_user, read by
        #: agents/baskets.
        self.purchase_changes = Topic(f"{group}-purchase-changes", WEEK)
        #: What that changed about who bought what with what; key product. Written by agents/baskets, read by
        #: agents/similar.
        self.co_purchases = Topic(f"{group}-co-purchases", WEEK)
        #: What could not be read, as it was, with the reason in the headers. Written by the source and all agents.
        self.orders_dead = Topic(f"{named}orders-dead", DEAD)
        #: What the source knows of itself; key a word, value JSON. Written by the source, read by it and all workers.
        self.source_state = Topic(f"{named}source-state", STATE, partitions=1)
        #: The changelogs of the tables: only their table writes and reads them.
        self.changelogs = tuple(Topic(f"{group}-{table}-changelog", COMPACTED) for table in TABLES)
        #: Table -> the name of the topic whose agent writes it.
        self.feeding = {
            "by_user": self.orders.name, "product_partials": self.orders.name, "by_product": self.product_partials.name,
            "baskets": self.purchase_changes.name, "similar": self.co_purchases.name,
        }  # fmt: skip

    def changelog(self, table: str) -> str:
        """The name of a table's changelog topic."""
        return self.changelogs[TABLES.index(table)].name

    @property
    def all(self) -> tuple[Topic, ...]:
        return (
            self.orders, self.product_partials, self.purchase_changes, self.co_purchases, self.orders_dead,
            self.source_state, *self.changelogs,
        )  # fmt: skip
