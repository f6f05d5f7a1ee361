"""Names of the outbox and of the tables beside it, and the search for an existing outbox.

The outbox is in a schema of its own, in which the users of the shop have no privileges. Earlier
versions created it in the shop's database (docs/decisions/018-outbox-in-a-schema-of-its-own.md).
"""

from __future__ import annotations

import zlib
from contextlib import closing
from dataclasses import replace

import mysql.connector
from mysql.connector import errorcode

from app.setting_values import DEFAULT_OUTBOX, MAX_NAME_CHARACTERS
from app.settings import OUTBOX, Settings
from source.mysql import Connection, connect, fetch_first
from source.quoting import quote

#: The table that contains the first version has the name of the outbox with this suffix.
STATE_SUFFIX = "_state"

#: Errors for a table that does not exist. MySQL refuses access also to a table that does not exist,
#: when the user has no privilege in its schema.
UNKNOWN_TABLE = {
    errorcode.ER_NO_SUCH_TABLE,
    errorcode.ER_BAD_DB_ERROR,
    errorcode.ER_TABLEACCESS_DENIED_ERROR,
    errorcode.ER_DBACCESS_DENIED_ERROR,
}

#: Characters of "_insert", "_update" and "_delete".
_EVENT_CHARACTERS = 7
_CHECKSUM_CHARACTERS = 8


def is_in_shop_database(settings: Settings) -> bool:
    """Return whether the outbox is in the database of the shop, as in earlier versions."""
    return settings.outbox.schema.lower() == settings.mysql_database.lower()


def quoted_outbox(settings: Settings, suffix: str = "") -> str:
    """Return the quoted name of the outbox, or of the table beside it with this suffix.

    In the shop's database the name has no schema: triggers of earlier versions contain this form.
    """
    schema, table = settings.outbox
    name = quote(f"{table}{suffix}")
    return name if is_in_shop_database(settings) else f"{quote(schema)}.{name}"


def displayed_outbox(settings: Settings) -> str:
    """Return the name of the outbox for messages; without the schema of the shop's database."""
    schema, table = settings.outbox
    return table if is_in_shop_database(settings) else f"{schema}.{table}"


def trigger_name(settings: Settings, event: str) -> str:
    """Return the name of the trigger for `event`: insert, update or delete.

    Triggers are in the shop's database, so the name of each outbox results in other names.
    """
    schema, table = settings.outbox
    if is_in_shop_database(settings):
        return f"{table}_{event}"
    prefix, length = f"{schema}_{table}", MAX_NAME_CHARACTERS - _EVENT_CHARACTERS
    if len(prefix) > length:
        checksum = f"{zlib.crc32(prefix.encode()):0{_CHECKSUM_CHARACTERS}x}"
        prefix = f"{prefix[: length - _CHECKSUM_CHARACTERS - 1]}_{checksum}"
    return f"{prefix}_{event}"


def locate_outbox(connection: Connection, settings: Settings) -> Settings:
    """Return settings that name the outbox explicitly; call it once per process or command.

    Without LATELY_SOURCE_OUTBOX, an outbox that an earlier version created in the shop's database
    is used as long as the default schema has none. Raises mysql.connector.Error.
    """
    if settings.source_mode != OUTBOX or settings.source_outbox:
        return settings
    default = replace(settings, source_outbox=".".join(settings.outbox))
    in_shop = replace(settings, source_outbox=DEFAULT_OUTBOX)
    return in_shop if not is_set_up(connection, default) and is_set_up(connection, in_shop) else default


def with_outbox(settings: Settings) -> Settings:
    """Return what `locate_outbox` returns, over a connection of its own.

    Raises BadSource, DatabaseAway.
    """
    if settings.source_mode != OUTBOX or settings.source_outbox:
        return settings
    with closing(connect(settings)) as connection:
        return locate_outbox(connection, settings)


def is_set_up(connection: Connection, settings: Settings) -> bool:
    """Return whether the table of the first version exists, is readable and has its row."""
    return read_first_version(connection, settings) is not None


def read_first_version(connection: Connection, settings: Settings) -> int | None:
    """Return the id at which versions start; None when there is no outbox."""
    try:
        statement = f"SELECT first_version FROM {quoted_outbox(settings, STATE_SUFFIX)} WHERE id = 1"
        row = fetch_first(connection, tuple[int], statement)
    except mysql.connector.Error as exc:
        if exc.errno in UNKNOWN_TABLE:
            return None
        raise
    return None if row is None else row[0]
