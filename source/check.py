"""`lately source check`: everything the source needs, looked at before anything starts; each finding with its fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

import mysql.connector

from app.control import source_state
from app.errors import BadSource
from app.settings import COLUMNS, OPTIONAL_COLUMNS, OUTBOX, Settings
from source import guarantee, snapshot, triggers
from source.columns import problems_of, quoted, shop_columns
from source.mysql import Connection, connect, text

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `result` is ok, warning or failed; `fix` says what to do."""

    name: str
    result: str
    detail: str
    fix: str = ""


def check(settings: Settings) -> list[Finding]:
    """All findings about the shop's server, table and columns, and what setup has made there.

    Raises BadSource when the server refuses the user, ServerAway when it does not answer.
    """
    with closing(connect(settings)) as connection:
        tls = "with TLS" if connection.is_secure else "without TLS"
        found = [Finding("connection", OK, f"MySQL answers as {_version(connection)}, {tls}")]
        looks: list[Callable[[Connection, Settings], Iterator[Finding]]] = [_server, _table]
        looks += [_outbox, _rights] if settings.source_mode == OUTBOX else [_watermark]
        looks.append(_promise)
        for look in looks:
            try:
                found += look(connection, settings)
            except mysql.connector.Error as exc:
                found.append(Finding(look.__name__.strip("_"), FAILED, f"could not be looked at: {exc}", "see above"))
        return found


def _version(connection: Connection) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT VERSION()")
        return text(cursor.fetchone()[0])


def _server(connection: Connection, settings: Settings) -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@session.time_zone")
        zone = text(cursor.fetchone()[0])
    if zone == "+00:00":
        yield Finding("session time zone", OK, "UTC")
    else:
        yield Finding("session time zone", FAILED, f"{zone}", "let init_connect leave time_zone alone")
    if settings.source_mode == OUTBOX and guarantee.variable(connection, "log_bin") == "ON":
        if guarantee.variable(connection, "binlog_format") != "ROW":
            yield Finding(
                "binlog format", WARNING, "UUID() in a trigger is not safe in statements", "set binlog_format=ROW"
            )


def _table(connection: Connection, settings: Settings) -> Iterator[Finding]:
    table = f"{settings.mysql_database}.{settings.source_table}"
    problems = problems_of(connection, settings)
    for what, problem, fix in problems:
        yield Finding(what, FAILED, problem, fix)
    if any(what == "table" for what, *_ in problems):
        return
    engine = guarantee.engine_of(connection, settings)
    if engine != "InnoDB":
        yield Finding("engine", FAILED, f"{table} is {engine}", f"ALTER TABLE {settings.source_table} ENGINE=InnoDB")
    else:
        yield Finding("engine", OK, engine)
    key = snapshot.chunked_by(connection, settings)
    if key:
        yield Finding("primary key", OK, ", ".join(key))
    else:
        yield Finding(
            "primary key", WARNING, "none to read chunks by: a snapshot that is interrupted begins anew", "add one"
        )
    if problems:
        return
    columns = shop_columns(connection, settings)
    yield Finding("columns", OK, ", ".join(f"{ours}={name}" for ours, (name, _) in columns.items()))
    yield from _collations(connection, settings, columns)
    for ours in COLUMNS:
        if ours not in columns and ours in OPTIONAL_COLUMNS:
            yield Finding(f"column {ours}", WARNING, "there is none", f"name it in LATELY_SOURCE_COLUMNS as {ours}=…")


def _collations(connection: Connection, settings: Settings, columns: dict) -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, collation_name FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s AND collation_name IS NOT NULL",
            (settings.mysql_database, settings.source_table),
        )
        found = {text(name): text(collation) for name, collation in cursor.fetchall()}
    for ours in ("user_id", "order_id", "product_name"):
        collation = found.get(columns[ours][0])
        if collation is not None and not collation.endswith(("_bin", "_cs", "_as_cs")) and collation != "binary":
            yield Finding(
                f"collation of {columns[ours][0]}", WARNING,
                f"{collation}: to your SQL 'ann' and 'Ann' are equal, to Lately they are not",
                f"write {ours} always the same way, or use utf8mb4_bin",
            )  # fmt: skip


def _outbox(connection: Connection, settings: Settings) -> Iterator[Finding]:
    with suppress(BadSource):
        if triggers.first_version(connection, settings) is None:
            yield Finding("outbox", FAILED, f"there is no {settings.source_outbox}", "run `lately source setup`")
            return
        yield Finding("outbox", OK, settings.source_outbox)
        missing = triggers.missing(connection, settings)
        for name in missing:
            yield Finding(
                f"trigger {name}", FAILED, "missing, or not as it has to be: changes go unseen",
                "run `lately source setup`, which also publishes the rows as they are now",
            )  # fmt: skip
        if not missing:
            yield Finding("triggers", OK, ", ".join(triggers.names(connection, settings)))


def _rights(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """What setup and the triggers need, tried out or read from the grants."""
    granted = _grants(connection, settings)
    needed = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "TRIGGER", "LOCK TABLES"]
    missing = [right for right in needed if right not in granted]
    for right in missing:
        yield Finding(
            f"privilege {right}", FAILED, "missing", f"GRANT {right} ON `{settings.mysql_database}`.* TO the user"
        )
    if not missing:
        yield Finding("privileges", OK, ", ".join(needed))
    if (
        guarantee.variable(connection, "log_bin") == "ON"
        and guarantee.variable(connection, "log_bin_trust_function_creators") != "ON"
        and "SUPER" not in granted
        and not triggers.names(connection, settings)
    ):
        yield Finding(
            "triggers with binlog (1419)", FAILED, "the server lets only SUPER create triggers",
            "SET GLOBAL log_bin_trust_function_creators = 1",
        )  # fmt: skip


def _grants(connection: Connection, settings: Settings) -> set[str]:
    rights: set[str] = set()
    database = settings.mysql_database.replace("_", r"\_")
    scopes = {"*.*", f"`{settings.mysql_database}`.*", f"`{database}`.*"}
    with connection.cursor() as cursor:
        cursor.execute("SHOW GRANTS")
        for (line,) in cursor.fetchall():
            words, _, rest = text(line).removeprefix("GRANT ").partition(" ON ")
            if rest.partition(" TO ")[0] in scopes:
                rights |= {word.strip().upper() for word in words.split(",")}
    everything = {
        "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "TRIGGER", "LOCK TABLES", "DROP", "SUPER", "PROCESS",
    }  # fmt: skip
    return everything if "ALL PRIVILEGES" in rights else rights


def _watermark(connection: Connection, settings: Settings) -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extra, column_key FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s AND column_name = %s",
            (settings.mysql_database, settings.source_table, settings.source_id),
        )
        found = cursor.fetchone()
    name = f"column {settings.source_id}"
    if found is None:
        yield Finding(
            name,
            FAILED,
            "there is none for the watermark to follow",
            "set LATELY_SOURCE_ID to the AUTO_INCREMENT column",
        )
    elif "auto_increment" not in text(found[0]).lower():
        yield Finding(name, FAILED, "it is not AUTO_INCREMENT", "set LATELY_SOURCE_ID to the column that is")
    else:
        yield Finding(name, OK, "AUTO_INCREMENT")
    with connection.cursor() as cursor:
        try:
            cursor.execute(f"SELECT 1 FROM {quoted(settings.source_table)} LIMIT 1")
            cursor.fetchall()
            yield Finding("privilege SELECT", OK, "")
        except mysql.connector.Error as exc:
            yield Finding(
                "privilege SELECT", FAILED, exc.msg, f"GRANT SELECT ON `{settings.mysql_database}`.* TO the user"
            )
    yield Finding(
        "changes and removals", WARNING, "this mode sees new rows only", f"LATELY_SOURCE_MODE={OUTBOX} sees all"
    )


def _promise(connection: Connection, settings: Settings) -> Iterator[Finding]:
    promised = guarantee.assess(connection, settings)
    result = {source_state.PROVEN: OK, source_state.TIMED: FAILED, source_state.NONE: FAILED}[promised.level]
    detail = "; ".join(reason.partition(": ")[0] for reason in promised.reasons)
    fix = "; ".join(reason.partition(": ")[2] for reason in promised.reasons if ": " in reason)
    yield Finding("guarantee", result, promised.level + (f" ({detail})" if detail else ""), fix)
