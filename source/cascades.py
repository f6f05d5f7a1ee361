"""Cascades of foreign keys that change rows of the shop's table without running its triggers."""

from __future__ import annotations

from dataclasses import dataclass

from app.settings import Settings
from source.mysql import Connection, fetch_all, to_text
from source.server_role import read_variable

#: The kind of change in `meta.unseen`.
CASCADE = "cascade"

_CHANGES = {"CASCADE", "SET NULL", "SET DEFAULT"}


@dataclass(frozen=True)
class Cascades:
    """Foreign keys whose cascades remove rows or change captured columns of the shop's table.

    `run_triggers` is whether triggers run for them. `can_run_triggers` is whether a variable of the
    server can be set for that.
    """

    foreign_keys: tuple[str, ...] = ()
    run_triggers: bool = False
    can_run_triggers: bool = False

    @property
    def unseen(self) -> tuple[str, ...]:
        """The kinds of changes that triggers do not see."""
        return (CASCADE,) if self.foreign_keys and not self.run_triggers else ()


def read_cascades(connection: Connection, settings: Settings) -> Cascades:
    """Read the cascades that affect the shop's table, as far as the user may see foreign keys.

    Raises mysql.connector.Error.
    """
    rows = fetch_all(
        connection,
        tuple[str | bytes, str | bytes, str | bytes, str | bytes],
        "SELECT r.constraint_name, r.delete_rule, r.update_rule, k.column_name"
        " FROM information_schema.referential_constraints r JOIN information_schema.key_column_usage k"
        " ON k.constraint_schema = r.constraint_schema AND k.constraint_name = r.constraint_name"
        " AND k.table_name = r.table_name"
        " WHERE r.constraint_schema = %s AND r.table_name = %s ORDER BY r.constraint_name",
        (settings.mysql_database, settings.source_table),
    )
    captured = {name.lower() for name in settings.columns.values()}
    names = []
    for name, delete_rule, update_rule, column in (map(to_text, row) for row in rows):
        changes_column = delete_rule in _CHANGES or update_rule in _CHANGES
        if delete_rule == "CASCADE" or (changes_column and column.lower() in captured):
            names.append(name)
    if not names:
        return Cascades()
    # New in MySQL 9. It has an effect only if the server, and not InnoDB, executes the cascades.
    variable = read_variable(connection, "enable_cascade_triggers")
    is_native = read_variable(connection, "innodb_native_foreign_keys") == "ON"
    return Cascades(
        tuple(dict.fromkeys(names)),
        run_triggers=variable == "ON" and not is_native,
        can_run_triggers=variable is not None,
    )
