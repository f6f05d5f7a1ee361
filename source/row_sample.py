"""A bounded sample of the shop's rows, tried against the rules for events."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from app.settings import Settings
from source.columns import Columns, payload_expression, read_primary_key, read_shop_columns
from source.mysql import Connection, fetch_all
from source.quoting import quote
from source.shop_row import decode_row

#: Number of rows that are read from each end of the primary key.
SAMPLE_ROWS = 1_000
_MAX_KEY_CHARS = 60
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

#: JSON of a row, then the values of its key.
_KeyedRow = tuple[Any, ...]


@dataclass
class BrokenRows:
    """Number of rows of a sample that break one rule, and the key of the first of them."""

    example: str
    count: int = 0


@dataclass
class RowSample:
    """Number of rows in a sample, and rule -> the rows that break it."""

    rows: int = 0
    broken: dict[str, BrokenRows] = field(default_factory=dict)


def read_sample(connection: Connection, settings: Settings) -> RowSample:
    """Try the rows with the lowest and the highest primary keys, at most SAMPLE_ROWS of each.

    An example is named by its primary key, without the user's id; without a primary key by the
    order id. Raises mysql.connector.Error, BadSource.
    """
    columns = read_shop_columns(connection, settings)
    key = [column.name for column in read_primary_key(connection, settings)]
    names = key or [columns["order_id"].name]
    payloads = _read_ends(connection, settings, columns, names, is_ordered=bool(key))
    sample = RowSample()
    for payload, *values in payloads:
        sample.rows += 1
        rule = decode_row(payload).broken_rule
        if rule is not None:
            text = ", ".join(
                f"{name}={'…' if name == columns['user_id'].name else _key_text(value)}"
                for name, value in zip(names, values, strict=True)
            )
            sample.broken.setdefault(rule, BrokenRows(text)).count += 1
    return sample


def _read_ends(
    connection: Connection, settings: Settings, columns: Columns, names: list[str], is_ordered: bool
) -> list[_KeyedRow]:
    table = quote(settings.source_table)
    keys = [f"{table}.{quote(name)}" for name in names]
    select = f"SELECT {', '.join([payload_expression(columns, table), *keys])} FROM {table}"
    if not is_ordered:
        return fetch_all(connection, tuple[Any, ...], f"{select} LIMIT {2 * SAMPLE_ROWS}")
    rows: dict[tuple[str, ...], _KeyedRow] = {}
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{key} {direction}" for key in keys)
        for row in fetch_all(connection, tuple[Any, ...], f"{select} ORDER BY {order} LIMIT {SAMPLE_ROWS}"):
            rows[tuple(map(str, row[1:]))] = row  # both ends of a small table contain the same rows
    return list(rows.values())


def _key_text(value: object) -> str:
    """Return a value of a key as short text without control characters."""
    if isinstance(value, bytes | bytearray):
        text = f"0x{bytes(value).hex()}"
    else:
        text = _CONTROL.sub("?", str(value))
    return text if len(text) <= _MAX_KEY_CHARS else f"{text[:_MAX_KEY_CHARS]}…"
