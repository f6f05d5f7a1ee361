"""To which topics the changes of a shop go, recorded on both sides.

The outbox names the Kafka cluster and the topic of its source, so that a source with other settings
does not publish and delete its rows. The topic source-state names the outbox, so that a second shop
does not publish to the topics of the first one. Both records contain the same random token; it
moves with the database, to a replica that is promoted or a server on which a dump is restored.
"""

from __future__ import annotations

import uuid
from typing import NamedTuple

from app.control.source_state import ShopIdentity
from app.errors import WrongIdentity
from app.settings import OUTBOX, Settings
from source import lock_table
from source.mysql import Connection, fetch_row, read_server_name
from source.outbox_table import displayed_outbox, is_set_up

_TAKE_OVER = "run `lately source setup --take-over` once if the shop has moved"


class OutboxOwner(NamedTuple):
    """The record in the outbox: cluster and topic to which its rows go, and the token."""

    cluster: str
    orders: str
    token: str


def owner_by_settings(settings: Settings, cluster: str) -> OutboxOwner:
    """Return the owner by these settings, with a new token; all generations have the same one."""
    return OutboxOwner(cluster, f"{settings.topic_prefix}orders", uuid.uuid4().hex)


def require_owner(
    connection: Connection, settings: Settings, own: OutboxOwner, shop: ShopIdentity | None
) -> OutboxOwner | None:
    """Return the record in the outbox; None: there is none.

    Raises WrongIdentity if the outbox belongs to other topics, or the topics to another shop
    (`shop` is the record in Kafka); mysql.connector.Error.
    """
    recorded = _read(connection, settings)
    if recorded is not None and recorded[:2] != own[:2]:
        raise WrongIdentity(
            f"the outbox {displayed_outbox(settings)} belongs to the topic {recorded.orders} on the Kafka cluster "
            f"{recorded.cluster}, but these settings publish to {own.orders} on {own.cluster}: correct LATELY_KAFKA "
            f"and LATELY_TOPIC_PREFIX, or set another LATELY_SOURCE_OUTBOX, or {_TAKE_OVER}"
        )
    if shop is None:
        return recorded
    if recorded is not None and shop.outbox:
        is_same = recorded.token == shop.outbox
    else:
        is_same = (shop.server, shop.table) == (_server(connection), settings.shop_table)
    if not is_same:
        raise WrongIdentity(
            f"the topic {own.orders} contains the orders of {shop.table} on the server {shop.server}, but these "
            f"settings read {settings.shop_table} on {_server(connection)}: set another LATELY_TOPIC_PREFIX and "
            f"LATELY_ID, or {_TAKE_OVER}"
        )
    return recorded


def claim(
    connection: Connection, settings: Settings, own: OutboxOwner, shop: ShopIdentity | None, *, take_over: bool = False
) -> ShopIdentity:
    """Record the owner in the outbox, and return the shop's identity to record in Kafka.

    Raises WrongIdentity, mysql.connector.Error.
    """
    recorded = None if take_over else require_owner(connection, settings, own, shop)
    if recorded is None and settings.source_mode == OUTBOX and lock_table.exists(connection, settings):
        lock_table.write_owner(connection, settings, "/".join(own), is_replaced=take_over)
        # Another process may have been first.
        recorded = require_owner(connection, settings, own, None)
    token = "" if recorded is None else recorded.token
    return ShopIdentity(server=_server(connection), table=settings.shop_table, outbox=token)


def _read(connection: Connection, settings: Settings) -> OutboxOwner | None:
    if settings.source_mode != OUTBOX or not is_set_up(connection, settings):
        return None
    if not lock_table.exists(connection, settings):
        return None  # an outbox of an earlier version, and no privilege to create the table
    text = lock_table.read_owner(connection, settings)
    parts = [] if text is None else text.split("/")
    return OutboxOwner(*parts) if len(parts) == len(OutboxOwner._fields) else None


def _server(connection: Connection) -> str:
    """Return a name of the server; MariaDB 10.11 has only an id that is 1 nearly everywhere."""
    name = read_server_name(connection)
    if not name.isdigit():
        return name
    host, port = fetch_row(connection, tuple[str, int], "SELECT @@hostname, @@port")
    return f"{name}@{host}:{port}"
