"""`lately source status`: how the source stands, from Kafka and from the shop's server."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress

import mysql.connector

from app.control import source_state
from app.settings import OUTBOX, Settings
from domain.values import rfc3339
from source import transactions, triggers
from source.columns import quote
from source.mysql import Connection, connect, read_server_time


def read_status(settings: Settings) -> dict[str, object]:
    """Name -> value of all there is to say. Raises BadSource, ServerAway."""
    known = asyncio.run(source_state.read(settings))
    shown: dict[str, object] = {"mode": settings.source_mode}
    with closing(connect(settings)) as connection:
        now = read_server_time(connection)
        running = known.get(source_state.STATUS)
        if running is None:
            shown["running"] = False
        else:
            silent = (now - running.at) / 1e6
            shown |= {
                "running": silent < source_state.STATUS_TIMEOUT_S,
                "leader": running.leader,
                "last_sign_s": round(silent, 1),
                "guarantee": running.guarantee,
                "reasons": "; ".join(running.reasons) or None,
                "published_up_to": None if running.as_of is None else rfc3339(running.as_of),
            }
        if settings.source_mode == OUTBOX:
            shown |= _outbox(connection, settings)
        elif source_state.WATERMARK in known:
            shown["watermark"] = known[source_state.WATERMARK].low
        with suppress(mysql.connector.Error):
            shown["oldest_transaction_s"] = transactions.read_oldest_age_s(connection)
    taken = known.get(source_state.SNAPSHOT)
    if taken is not None:
        shown |= {
            "snapshot": "done" if taken.done else "not finished: run `lately source snapshot`",
            "snapshot_rows": taken.rows,
            "may_lack_orders_before": taken.horizon,
        }
    wish = known.get(source_state.WISH)
    if source_state.is_request_pending(wish, taken):
        shown["snapshot_wanted"] = f"{wish.why}; the running source takes it, or `lately source snapshot --all`"
    return shown


def _outbox(connection: Connection, settings: Settings) -> dict[str, object]:
    if triggers.read_first_version(connection, settings) is None:
        return {"outbox": "not set up: run `lately source setup`"}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*), UNIX_TIMESTAMP(NOW(6)) - UNIX_TIMESTAMP(MIN(created_at))"
            f" FROM {quote(settings.source_outbox)}"
        )
        rows, oldest = cursor.fetchone()
    return {"outbox_rows": rows, "oldest_pending_s": None if oldest is None else round(float(oldest), 1)}
