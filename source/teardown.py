"""`lately source teardown`: remove the triggers, wherever they are, and then the outbox."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import mysql.connector

from app.errors import BadSource
from app.settings import Settings
from source import lock_table, probe, triggers
from source.accounts import current_account, read_session_grants
from source.installed_triggers import read_triggers
from source.mysql import Connection, connect, execute, fetch_row
from source.needs import grants_for
from source.outbox_table import STATE_SUFFIX, displayed_outbox, locate_outbox, quoted_outbox, read_first_version
from source.privileges import Need
from source.server_errors import explain


def teardown(settings: Settings, force: bool, report: Callable[[str], None] = print) -> None:
    """Remove the triggers and the outbox. Unpublished changes are lost, which requires `force`.

    `report` receives lines of text. Raises BadSource before anything is removed, DatabaseAway.
    """
    with closing(connect(settings)) as connection:
        try:
            settings = locate_outbox(connection, settings)
            _require_privileges(connection, settings)
            has_outbox = read_first_version(connection, settings) is not None
            installed = read_triggers(connection, settings, everywhere=True)
            if has_outbox:
                if any(triggers.is_on_shop_table(trigger, settings) for trigger in installed):
                    # After the lock is acquired, no transaction that has changed orders is open:
                    # the outbox contains all changes that there will ever be.
                    triggers.lock_tables(connection, settings)
                _require_empty_outbox(connection, settings, force)
            # The triggers first: without the outbox they would make the shop's own statements fail.
            # Under the lock only those of the locked tables can be removed.
            own_triggers = [trigger for trigger in installed if triggers.is_on_shop_table(trigger, settings)]
            for trigger in own_triggers:
                execute(connection, f"DROP TRIGGER {trigger.qualified_name}")
            execute(connection, "UNLOCK TABLES")
            for trigger in installed:
                if trigger not in own_triggers:
                    execute(connection, f"DROP TRIGGER {trigger.qualified_name}")
                report(f"trigger {trigger.name} on {trigger.schema}.{trigger.table} is removed")
            probe.remove(connection, settings)
            if has_outbox:
                execute(
                    connection,
                    f"DROP TABLE {quoted_outbox(settings)}, {quoted_outbox(settings, STATE_SUFFIX)}",
                )
            lock_table.drop(connection, settings)
            report(f"table {displayed_outbox(settings)} is removed" if has_outbox else "there is no outbox")
        except mysql.connector.Error as exc:
            raise explain("the outbox could not be removed", exc, settings) from None


def _require_privileges(connection: Connection, settings: Settings) -> None:
    """Raise BadSource unless this user sees all triggers of the shop's table, and may drop the outbox.

    A trigger that remains without the outbox would make the shop's own statements fail.
    """
    needs = [
        Need("TRIGGER", settings.mysql_database, settings.source_table),
        Need("DROP", settings.outbox.schema, settings.outbox.table),
    ]
    granted = read_session_grants(connection)
    missing = granted.missing(needs)
    if missing:
        raise BadSource(
            "the user may not remove the triggers and the outbox, and nothing is removed: "
            + "; ".join(grants_for(missing, current_account(connection), granted))
        )


def _require_empty_outbox(connection: Connection, settings: Settings, force: bool) -> None:
    changes = fetch_row(connection, tuple[int], f"SELECT COUNT(*) FROM {quoted_outbox(settings)}")[0]
    if changes and not force:
        raise BadSource(
            f"{changes} changes in {displayed_outbox(settings)} are not published yet: "
            "let `lately source` publish them, or pass --force to lose them"
        )
