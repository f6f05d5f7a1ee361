"""Proof that the shop's statements will not fail once the triggers exist, before they exist."""

from __future__ import annotations

import mysql.connector
from mysql.connector import errorcode

from app.errors import BadSource
from app.settings import Settings
from source import probe
from source.accounts import Account, current_account, read_account
from source.columns import Columns
from source.mysql import Connection
from source.needs import before_outbox, grants_for, missing_of_definer
from source.privileges import Need
from source.quoting import quote_account
from source.server_errors import explain


def prove_definer(
    connection: Connection, settings: Settings, columns: Columns, names: tuple[str, ...], outbox_existed: bool
) -> None:
    """Raise BadSource unless triggers with the definer of the settings can do their work.

    The probe shows what the server allows. It cannot show the privilege TRIGGER on the shop's
    table, which is read from the definer's grants. `outbox_existed`: a refused setup does not
    remove the outbox. Raises DatabaseAway.
    """
    account = read_account(connection, settings.source_definer or current_account(connection))
    if account.exists is False:
        raise BadSource(
            f"the definer {account.name} does not exist: create it (`lately source setup --print-sql` prints the "
            "statements), or correct LATELY_SOURCE_DEFINER"
        )
    missing = missing_of_definer(account, settings, names)
    if not outbox_existed:
        missing = before_outbox(missing, settings)
    try:
        probe.try_triggers(connection, settings, columns)
    except mysql.connector.Error as exc:
        if not is_probe_denied(exc, account):
            grants = grants_for(missing, account.name, account.grants)
            raise explain("a trial of the triggers failed", exc, settings, grants) from None
        _require_grants(account, missing, settings)
        return
    # The probe has shown all privileges but this one.
    _require_grants(account, [need for need in missing if need.privilege == "TRIGGER"], settings)


def is_probe_denied(exc: mysql.connector.Error, account: Account) -> bool:
    """Return whether the definer may not have a trigger on the probe's table, which is no defect."""
    user = account.name.rpartition("@")[0]
    message = exc.msg or ""
    return (
        exc.errno == errorcode.ER_TABLEACCESS_DENIED_ERROR
        and message.startswith("TRIGGER command denied")
        and f"'{user}'@" in message
        and probe.is_about_probe(message)
    )


def _require_grants(account: Account, missing: list[Need], settings: Settings) -> None:
    if account.grants is None:
        outbox = settings.outbox
        raise BadSource(
            f"the privileges of the definer {account.name} cannot be read, and cannot be tried: "
            f"GRANT TRIGGER ON `{outbox.schema}`.`{outbox.table}{probe.SUFFIX}` TO {quote_account(account.name)}"
        )
    if missing:
        roles = f" (its roles {', '.join(account.grants.roles)} do not count)" if account.grants.roles else ""
        raise BadSource(
            f"triggers with the definer {account.name} would make the shop's statements fail, because it lacks "
            f"privileges{roles}: {'; '.join(grants_for(missing, account.name, account.grants))}"
        )
