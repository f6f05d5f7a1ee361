"""`lately source setup --print-sql`: the statements of a setup for an administrator."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from app.settings import OUTBOX, Settings
from source import triggers
from source.columns import read_primary_key, read_shop_columns
from source.mysql import connect, is_mariadb
from source.needs import ROLE_NEED, definer_needs, grants_for, needed_columns, removal_needs, user_needs
from source.outbox_table import is_in_shop_database, locate_outbox
from source.privileges import Need
from source.quoting import quote, quote_account

#: The definer that is offered, and the user where the settings name an administrator.
DEFAULT_DEFINER, DEFAULT_USER = "lately_trigger@localhost", "lately"

_NOTE = """\
-- `lately source setup` executes the statements that create tables and triggers, and takes a snapshot. If you execute
-- them yourself, run `lately source snapshot` afterwards."""
_DEFINER_NOTE = """\
-- The triggers run with the privileges of this account. It is locked: nobody can log in with it. LATELY_SOURCE_DEFINER
-- selects another account."""
_USER_NOTE = "-- The user of `lately source` needs these privileges, and no others:"


def setup_statements(settings: Settings) -> str:
    """Return the statements of `setup` as SQL for a MySQL client.

    They include an account for the triggers with the least privileges, and as comments those of the
    user of Lately. Raises BadSource, DatabaseAway.
    """
    if settings.source_mode != OUTBOX:
        return "-- In watermark mode the source only reads: there are no statements to execute."
    settings = replace(settings, source_definer=settings.source_definer or DEFAULT_DEFINER)
    with closing(connect(settings)) as connection:
        settings = locate_outbox(connection, settings)
        trigger_statements = triggers.expected_triggers(connection, settings).values()
        key = [column.name for column in read_primary_key(connection, settings)]
        columns = needed_columns(read_shop_columns(connection, settings), key, settings)
        needs = [*user_needs(settings, columns), *removal_needs(settings)]
        if not is_mariadb(connection):
            needs.append(ROLE_NEED)
    tables = [
        f"USE {quote(settings.mysql_database)}",
        *([] if is_in_shop_database(settings) else [triggers.schema_statement(settings)]),
        *triggers.table_statements(settings),
        *triggers.version_statements(settings, triggers.now_microseconds()),
    ]
    return "\n\n".join([
        _NOTE, *_terminated(tables),
        _DEFINER_NOTE, *_terminated(_definer_statements(settings, columns)),
        _USER_NOTE + "".join(f"\n--   {line}" for line in _terminated(_user_statements(settings, needs))),
        "DELIMITER //", *(f"{statement}//" for statement in trigger_statements), "DELIMITER ;",
    ])  # fmt: skip


def _terminated(statements: list[str]) -> list[str]:
    return [f"{statement};" for statement in statements]


def _definer_statements(settings: Settings, columns: tuple[str, ...]) -> list[str]:
    definer = settings.source_definer
    return [
        f"CREATE USER IF NOT EXISTS {quote_account(definer)} ACCOUNT LOCK",
        *grants_for(definer_needs(settings, columns), definer),
    ]


def _user_statements(settings: Settings, needs: list[Need]) -> list[str]:
    user = f"{DEFAULT_USER if settings.mysql_user == 'root' else settings.mysql_user}@%"
    return [f"CREATE USER IF NOT EXISTS {quote_account(user)} IDENTIFIED BY '…'", *grants_for(needs, user)]
