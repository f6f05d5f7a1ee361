"""A change that is not published yet, and how it is read from the outbox."""

from __future__ import annotations

from dataclasses import dataclass

from app.settings import Settings
from source.mysql import Connection, fetch_all
from source.outbox_table import quoted_outbox


@dataclass(frozen=True)
class OutboxRow:
    """A change to publish. In watermark mode `id` is the id in the shop's table.

    `problem`: why the row is no change of the shop; it becomes a dead letter.
    """

    id: int
    version: int
    event_id: str
    type: str
    payload: str
    traceparent: str | None
    created_at: str
    problem: str | None = None


def select_rows(connection: Connection, settings: Settings, condition: str) -> list[tuple[OutboxRow, int]]:
    """Return rows and the times of their creation (microseconds), selected by the end of a statement.

    Raises mysql.connector.Error.
    """
    rows = fetch_all(
        connection,
        tuple[int, int, str, str, str, str | None, str, int],
        "SELECT id, COALESCE(version, id), event_id, type, payload, traceparent,"
        " DATE_FORMAT(created_at, '%Y-%m-%dT%H:%i:%S.%fZ'),"
        " CAST(UNIX_TIMESTAMP(created_at) * 1000000 AS UNSIGNED)"
        f" FROM {quoted_outbox(settings)} {condition}",
    )
    return [(OutboxRow(*row[:7]), row[7]) for row in rows]
