"""Ids of the outbox that no trigger assigned, and their correction.

The id of a row is the version of its event. AUTO_INCREMENT starts at the time of the setup in
microseconds and grows by one per change, so an id is never far ahead of the clock. A row that
somebody inserted with a larger id moves AUTO_INCREMENT there: later changes of the shop get such ids
too, or, after the largest id, every INSERT of the shop fails.

The source publishes these changes with versions of the present time, in the order of their ids. So
no version is ever far ahead, and changes with ordinary ids, after `setup` has corrected
AUTO_INCREMENT, have greater versions. The row with the largest id is no change: AUTO_INCREMENT never
assigns it. Ids below all possible ones are no changes either, as long as AUTO_INCREMENT is right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import mysql.connector

from app.settings import Settings
from domain.events import read_references
from source import triggers
from source.mysql import Connection, execute, fetch_all, fetch_row
from source.outbox_row import OutboxRow, select_rows
from source.outbox_table import displayed_outbox, quoted_outbox, read_first_version
from source.server_errors import explain
from source.triggers import MAX_AHEAD
from source.versions import read_next_id

#: Ids start at the microseconds since 1970. This smallest possible start is in the year 2001.
SMALLEST_ID = 10**15
#: The largest id of the column; AUTO_INCREMENT does not assign it.
LARGEST_ID = 2**63 - 1

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def largest_ordinary_id(connection: Connection, settings: Settings) -> int:
    """Return the largest id that a trigger can have assigned by now."""
    first = read_first_version(connection, settings) or 0
    return max(first, triggers.now_microseconds()) + MAX_AHEAD


def are_ordinary(rows: Sequence[OutboxRow]) -> bool:
    """Return whether all ids and versions are ordinary, without asking the server.

    `rows` are in the order of their ids.
    """
    largest = triggers.now_microseconds() + MAX_AHEAD
    return not rows or (
        rows[0].id >= SMALLEST_ID and rows[-1].id <= largest and max(row.version for row in rows) <= largest
    )


def correct_versions(
    rows: Sequence[OutboxRow],
    *,
    largest: int,
    next_id: int,
    first_version: int,
    order_ids: Mapping[int, str | None],
) -> list[OutboxRow]:
    """Return the rows with versions that are not ahead, and with the problems of rows that are no
    changes.

    `largest` is the largest ordinary id, `next_id` the next AUTO_INCREMENT, `order_ids` the column
    `aggregateid` of the rows with larger ids. The first of these rows gets `first_version`, unless
    an ordinary row has a greater version.
    """
    corrected = []
    version = max([first_version, *(row.version + 1 for row in rows if row.version <= largest)])
    for row in rows:
        problem = _find_problem(row, largest, next_id, order_ids)
        if problem is not None:
            corrected.append(replace(row, version=0, problem=problem))
        elif row.id > largest and row.version == row.id:
            corrected.append(replace(row, version=version))
            version += 1
        else:
            corrected.append(row)
    return corrected


def _find_problem(row: OutboxRow, largest: int, next_id: int, order_ids: Mapping[int, str | None]) -> str | None:
    # When versions are begun anew, all rows get versions of their own.
    if row.id < SMALLEST_ID <= next_id and row.version == row.id:
        return f"no trigger wrote the row: its id {row.id} is below all ids that AUTO_INCREMENT has assigned"
    if row.id > largest and not _looks_like_change(row, order_ids.get(row.id)):
        reason = "is far ahead of the time, and it has no event id or order id of a change"
        return f"no trigger wrote the row: its id {row.id} {reason}"
    if row.version != row.id and row.version > largest:
        return f"no trigger wrote the row: its version {row.version} is ahead of the time"
    return None


def _looks_like_change(row: OutboxRow, order_id: str | None) -> bool:
    """Return whether event id and `aggregateid` are as a trigger writes them."""
    order = read_references(b'{"data":%b}' % row.payload.encode())[0]
    return _UUID.fullmatch(row.event_id) is not None and order is not None and str(order)[:255] == order_id


def read_order_ids(connection: Connection, settings: Settings, largest: int, limit: int) -> dict[int, str | None]:
    """Return id -> `aggregateid` of the first rows whose id is larger than `largest`."""
    statement = f"SELECT id, aggregateid FROM {quoted_outbox(settings)} WHERE id > {largest} ORDER BY id LIMIT {limit}"
    return dict(fetch_all(connection, tuple[int, str | None], statement))


def find_problem(connection: Connection, settings: Settings) -> str | None:
    """Return a description when the next id is far ahead of the time; None: it is right."""
    next_id = read_next_id(connection, settings)
    if next_id <= largest_ordinary_id(connection, settings):
        return None
    is_last = next_id >= LARGEST_ID
    effect = "every INSERT of the shop fails" if is_last else "the shop's changes get ids far ahead of the time"
    outbox = displayed_outbox(settings)
    return f"the next id of {outbox} is {next_id}: a row that no trigger wrote moved it, and {effect}"


def read_largest_row(connection: Connection, settings: Settings) -> OutboxRow | None:
    """Return the row with the largest id if it is no change; None: there is none."""
    for row, _ in select_rows(connection, settings, f"WHERE id = {LARGEST_ID}"):
        if not _looks_like_change(row, read_order_ids(connection, settings, LARGEST_ID - 1, 1)[LARGEST_ID]):
            problem = f"no trigger wrote the row: its id {LARGEST_ID} is the largest one"
            return replace(row, version=0, problem=problem)
    return None


def reset_next_id(connection: Connection, settings: Settings, removed: OutboxRow | None) -> int:
    """Give the rows with ids ahead of the time ordinary ids, and set AUTO_INCREMENT above them.

    Returns the number of these rows. `removed`, a row that is a dead letter now, is deleted. The
    shop's writes wait meanwhile. The order of the steps makes it safe to repeat them:

    1. Wait for the end of all transactions that have written to the outbox, and block new ones.
    2. Give the rows new ids in their order, one by one.
    3. Set AUTO_INCREMENT above them.

    Raises BadSource when the user lacks a privilege.
    """
    outbox = quoted_outbox(settings)
    try:
        largest = largest_ordinary_id(connection, settings)
        # 1.
        triggers.lock_tables(connection, settings)
        if removed is not None:
            execute(connection, f"DELETE FROM {outbox} WHERE id = {removed.id}")
        # 2.
        (highest,) = fetch_row(
            connection, tuple[int], f"SELECT COALESCE(MAX(id), 0) FROM {outbox} WHERE id <= {largest}"
        )
        ids = fetch_all(connection, tuple[int], f"SELECT id FROM {outbox} WHERE id > {largest} ORDER BY id")
        start = max(triggers.now_microseconds(), highest + 1)
        for new_id, (row_id,) in enumerate(ids, start):
            execute(connection, f"UPDATE {outbox} SET id = {new_id} WHERE id = {row_id}")
        # 3.
        execute(connection, f"ALTER TABLE {outbox} AUTO_INCREMENT = {start + len(ids)}")
        execute(connection, "UNLOCK TABLES")
    except mysql.connector.Error as exc:
        raise explain("the next id of the outbox could not be corrected", exc, settings) from None
    return len(ids)
