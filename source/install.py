"""Create, renew and move the triggers of the outbox; the shop's own statements never fail by it.

Every step that may fail comes before the first trigger is removed:

1. Everything that can be read is checked: the table, the server, the accounts.
2. The tables of the outbox are created.
3. A trigger on a table of ours shows that the shop's statements will not fail.
4. The new triggers are created, then the old ones are removed. Where old triggers capture the
   shop's table, its writes wait in the meantime.

What a failed step has created is removed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

import mysql.connector
from mysql.connector import errorcode

from app.errors import BadSource
from app.setting_values import MAX_NAME_CHARACTERS
from app.settings import Settings
from source import probe, server_rules, triggers
from source.accounts import current_account, read_account, read_session_grants, same_account
from source.columns import read_primary_key, read_shop_columns
from source.definers import prove_definer
from source.installed_triggers import EVENTS, InstalledTrigger, normalize, read_triggers
from source.mysql import Connection, execute, fetch_all, to_text
from source.needs import grants_for, missing_of_definer, needed_columns, removal_needs, user_needs
from source.outbox_table import displayed_outbox, is_in_shop_database, read_first_version, trigger_name
from source.quoting import quote
from source.server_errors import explain

#: Attempts to find a free name for a trigger.
_MAX_NAMES = 100


class Plan(NamedTuple):
    """The changes to make: events without a valid trigger, and triggers to remove."""

    create: list[str]
    #: Triggers of the shop's table: outdated ones, and repeated ones.
    replaced: list[InstalledTrigger]
    #: Triggers of other tables, for example of one that was renamed.
    elsewhere: list[InstalledTrigger]


def install(connection: Connection, settings: Settings, report: Callable[[str], None] = lambda line: None) -> None:
    """Create the missing objects, or renew them; a repetition changes nothing.

    `report` receives lines of text. Raises BadSource, with nothing changed, when the server or the
    shop's table does not allow it; DatabaseAway.
    """
    # 1.
    server_rules.require_suitable(connection, settings)
    columns = read_shop_columns(connection, settings)
    key = [column.name for column in read_primary_key(connection, settings)]
    bodies = triggers.build_bodies(settings, columns, key)
    names = needed_columns(columns, key, settings)
    tables_before: set[str] | None = None
    try:
        tables_before = read_own_tables(connection, settings)
        plan = _plan(connection, settings, bodies, names)
        is_set_up = read_first_version(connection, settings) is not None
        # 2.
        triggers.create_schema(connection, settings)
        for statement in triggers.table_statements(settings):
            execute(connection, statement)
        if is_set_up and not plan.create:
            _drop(connection, settings, [*plan.replaced, *plan.elsewhere], report)
            return
        if not is_set_up:
            triggers.restart_versions(connection, settings)
        # 3.
        prove_definer(connection, settings, columns, names, settings.outbox.table in tables_before)
        # 4.
        _change(connection, settings, plan, bodies, report)
    except mysql.connector.Error as exc:
        _remove_new_tables(connection, settings, tables_before)
        missing = _missing_of_user(connection, settings, names)
        raise explain("the outbox could not be set up", exc, settings, missing) from None
    except BadSource:
        _remove_new_tables(connection, settings, tables_before)
        raise


def _missing_of_user(connection: Connection, settings: Settings, names: tuple[str, ...]) -> list[str]:
    """Return the GRANT statements of the privileges that this user lacks."""
    with suppress(mysql.connector.Error):
        needs = [*user_needs(settings, names), *removal_needs(settings)]
        granted = read_session_grants(connection)
        return grants_for(granted.missing(needs), current_account(connection), granted)
    return []


def _plan(connection: Connection, settings: Settings, bodies: dict[str, str], names: tuple[str, ...]) -> Plan:
    installed = read_triggers(connection, settings, everywhere=True)
    own_triggers = [trigger for trigger in installed if triggers.is_on_shop_table(trigger, settings)]
    elsewhere = [trigger for trigger in installed if trigger not in own_triggers]
    _require_no_other_shop(elsewhere, settings)
    valid_definers = {
        name
        for name in {trigger.definer for trigger in own_triggers}
        if _is_valid_definer(connection, settings, name, names)
    }
    kept_triggers: dict[str, InstalledTrigger] = {}
    # The usual name is preferred to the one that a renewed trigger has.
    for trigger in sorted(own_triggers, key=lambda trigger: trigger.name != trigger_name(settings, trigger.event)):
        if trigger.definer in valid_definers and trigger.body == normalize(bodies[trigger.event]):
            kept_triggers.setdefault(trigger.event, trigger)
    return Plan(
        [event for event in EVENTS if event not in kept_triggers],
        [trigger for trigger in own_triggers if trigger not in kept_triggers.values()],
        elsewhere,
    )


def _is_valid_definer(connection: Connection, settings: Settings, name: str, columns: tuple[str, ...]) -> bool:
    if settings.source_definer and not same_account(name, settings.source_definer):
        return False
    account = read_account(connection, name)
    return account.exists is not False and not missing_of_definer(account, settings, columns)


def _require_no_other_shop(elsewhere: Iterable[InstalledTrigger], settings: Settings) -> None:
    """Raise BadSource if another setup captures another table with the same outbox.

    The trigger of a captured table reads that table. After a table was renamed, its triggers still
    read the table of the old name.
    """
    for trigger in elsewhere:
        if trigger.table.lower() in trigger.tables_read and settings.source_table.lower() not in trigger.tables_read:
            raise BadSource(
                f"{trigger.schema}.{trigger.table} is captured with the same outbox {displayed_outbox(settings)} "
                f"(trigger {trigger.name}): set LATELY_SOURCE_OUTBOX to another name, or run `lately source teardown` "
                f"with LATELY_SOURCE_TABLE={trigger.table} first"
            )


def _change(
    connection: Connection, settings: Settings, plan: Plan, bodies: dict[str, str], report: Callable[[str], None]
) -> None:
    if plan.replaced:
        # No change is captured twice, because none is made in the meantime.
        triggers.lock_tables(connection, settings)
    else:
        # The shop may write in between: the versions must be restarted before anything is captured.
        triggers.restart_versions(connection, settings)
    created: list[str] = []
    taken_names = _read_all_names(connection, settings)
    try:
        for event in plan.create:
            created.append(_create(connection, settings, event, bodies[event], taken_names))
        if plan.replaced:
            triggers.restart_versions(connection, settings)
    except mysql.connector.Error:
        with suppress(mysql.connector.Error):
            for name in created:
                execute(connection, f"DROP TRIGGER {quote(name)}")
            execute(connection, "UNLOCK TABLES")
        raise
    try:
        _drop(connection, settings, plan.replaced, report)
    finally:
        execute(connection, "UNLOCK TABLES")
    for name in created:
        report(f"trigger {name} captures the changes of {settings.shop_table}")
    _drop(connection, settings, plan.elsewhere, report)


def _create(connection: Connection, settings: Settings, event: str, body: str, taken_names: set[str]) -> str:
    """Create a trigger, and return its name: another trigger may have the usual one."""
    while True:
        name = _free_name(settings, event, taken_names)
        try:
            execute(connection, triggers.trigger_statement(settings, name, event, body))
        except mysql.connector.Error as exc:
            # A trigger of another table, which this user may not see.
            if exc.errno != errorcode.ER_TRG_ALREADY_EXISTS or name.lower() in taken_names:
                raise
            taken_names.add(name.lower())
        else:
            taken_names.add(name.lower())
            return name


def _drop(
    connection: Connection, settings: Settings, obsolete: Iterable[InstalledTrigger], report: Callable[[str], None]
) -> None:
    for trigger in obsolete:
        execute(connection, f"DROP TRIGGER {trigger.qualified_name}")
        is_on_shop_table = triggers.is_on_shop_table(trigger, settings)
        reason = "it is replaced" if is_on_shop_table else f"only {settings.source_table} is captured"
        report(f"trigger {trigger.name} on {trigger.schema}.{trigger.table} is removed: {reason}")


def _read_all_names(connection: Connection, settings: Settings) -> set[str]:
    """Return the names of all triggers in the shop's database that this user may see, in lower case."""
    rows = fetch_all(
        connection,
        tuple[str | bytes],
        "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = %s",
        (settings.mysql_database,),
    )
    return {to_text(name).lower() for (name,) in rows}


def _free_name(settings: Settings, event: str, taken_names: set[str]) -> str:
    """Return the usual name of a trigger, or one with a number: the old trigger still exists."""
    usual = trigger_name(settings, event)
    for number in range(2, _MAX_NAMES):
        if usual.lower() not in taken_names:
            return usual
        suffix = f"_{number}"
        name = usual[: MAX_NAME_CHARACTERS - len(suffix)] + suffix
        if name.lower() not in taken_names:
            return name
    return usual


def read_own_tables(connection: Connection, settings: Settings) -> set[str]:
    """Return the names of the outbox and of the tables beside it that exist."""
    schema, outbox = settings.outbox
    rows = fetch_all(
        connection,
        tuple[str | bytes],
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
        (schema,),
    )
    names = {to_text(name) for (name,) in rows}
    return {name for name in names if name.lower() == outbox.lower() or name.lower().startswith(f"{outbox.lower()}_")}


def _remove_new_tables(connection: Connection, settings: Settings, before: set[str] | None) -> None:
    """Remove the tables that did not exist before, and the schema if it is empty."""
    if before is None:
        return
    with suppress(mysql.connector.Error):
        execute(connection, "UNLOCK TABLES")
        probe.remove(connection, settings)
        new = read_own_tables(connection, settings) - before
        schema = quote(settings.outbox.schema)
        if new:
            execute(connection, f"DROP TABLE {', '.join(f'{schema}.{quote(name)}' for name in sorted(new))}")
        if new and not before and not is_in_shop_database(settings) and not _has_tables(connection, settings):
            execute(connection, f"DROP SCHEMA {schema}")


def _has_tables(connection: Connection, settings: Settings) -> bool:
    statement = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s LIMIT 1"
    return bool(fetch_all(connection, tuple[int], statement, (settings.outbox.schema,)))
