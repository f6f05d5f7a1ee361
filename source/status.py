"""`lately source status`: status of the source from Kafka and from the shop's server."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from decimal import Decimal

import mysql.connector

from app.control import source_state, state_topic
from app.settings import OUTBOX, Settings
from domain.values import rfc3339
from source import transactions
from source.mysql import Connection, connect, fetch_row, read_server_time
from source.outbox_table import displayed_outbox, locate_outbox, quoted_outbox, read_first_version


def read_status(settings: Settings) -> dict[str, object]:
    """Return name -> value of the status, in the order in which it is printed.

    Raises BadSource, ServerAway.
    """
    states = asyncio.run(state_topic.read(settings))
    fields: dict[str, object] = {"mode": settings.source_mode}
    with closing(connect(settings)) as connection:
        settings = locate_outbox(connection, settings)
        fields |= _leader_fields(states.status, read_server_time(connection))
        if settings.source_mode == OUTBOX:
            fields |= _outbox_fields(connection, settings)
        elif states.watermark is not None:
            fields["watermark"] = states.watermark.low
        with suppress(mysql.connector.Error):
            fields["oldest_transaction_s"] = transactions.read_oldest_age_s(connection)
    snapshot, request = states.snapshot, states.request
    if snapshot is not None:
        fields |= {
            "snapshot": "done" if snapshot.is_done else "not finished: run `lately source snapshot`",
            "snapshot_rows": snapshot.rows,
            "may_lack_orders_before": snapshot.horizon,
        }
    if request is not None and source_state.is_request_pending(request, snapshot):
        fields["snapshot_wanted"] = (
            f"{request.reason}; the running source takes the snapshot, or run `lately source snapshot --all`"
        )
    return fields


def _leader_fields(status: source_state.LeaderStatus | None, now: int) -> dict[str, object]:
    if status is None:
        return {"running": False}
    age_s = (now - status.written_at) / 1e6
    return {
        "running": age_s < source_state.STATUS_TIMEOUT_S,
        "leader": status.leader,
        "last_sign_s": round(age_s, 1),
        "guarantee": status.guarantee,
        "reasons": "; ".join(status.reasons) or None,
        "problems": [{"kind": problem.kind, "message": problem.message} for problem in status.problems],
        "published_up_to": None if status.as_of is None else rfc3339(status.as_of),
    }


def _outbox_fields(connection: Connection, settings: Settings) -> dict[str, object]:
    if read_first_version(connection, settings) is None:
        return {"outbox": "not set up: run `lately source setup`"}
    rows, oldest = fetch_row(
        connection,
        tuple[int, Decimal | None],
        f"SELECT COUNT(*), UNIX_TIMESTAMP(NOW(6)) - UNIX_TIMESTAMP(MIN(created_at)) FROM {quoted_outbox(settings)}",
    )
    return {
        "outbox": displayed_outbox(settings),
        "outbox_rows": rows,
        "oldest_pending_s": None if oldest is None else round(float(oldest), 1),
    }
