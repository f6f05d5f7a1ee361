"""`lately source check`: check all that the source needs; each finding has its next step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import mysql.connector

from app.control import source_state
from app.errors import BadSource
from app.settings import COLUMNS, OPTIONAL_COLUMNS, OUTBOX, Settings
from source import drift, guarantee, outbox_ids, row_sample, snapshot, triggers
from source.cascades import read_cascades
from source.check_privileges import check_privileges, check_triggers_allowed
from source.columns import Columns, find_column_problems, read_shop_columns
from source.drift_reader import read_capture
from source.findings import FAILED, OK, WARNING, Finding
from source.installed_triggers import read_triggers
from source.mysql import Connection, connect, fetch_all, fetch_first, fetch_row, read_version, to_text
from source.outbox_table import displayed_outbox, locate_outbox, read_first_version
from source.quoting import quote
from source.server_role import find_write_block, next_step_for


def check_source(settings: Settings) -> list[Finding]:
    """Check the shop's server, its table and columns, and the objects that setup creates.

    Raises BadSource when the server refuses the user, DatabaseAway when it does not answer.
    """
    with closing(connect(settings)) as connection:
        tls = "with TLS" if connection.is_secure else "without TLS"
        settings = locate_outbox(connection, settings)
        findings = [Finding("connection", OK, f"MySQL answers as {read_version(connection)}, {tls}")]
        checks: dict[str, Callable[[Connection, Settings], Iterator[Finding]]] = {
            "server": _check_server,
            "table": _check_table,
        }
        if settings.source_mode == OUTBOX:
            checks |= {"writes": _check_writes, "outbox": _check_outbox, "capture": _check_capture}
            checks |= {"privileges": check_privileges, "foreign keys": _check_cascades}
        else:
            checks |= {"watermark": _check_watermark}
        checks |= {"rows": _check_rows}
        checks |= {"promise": _check_guarantee}
        for name, check in checks.items():
            try:
                findings += check(connection, settings)
            except mysql.connector.Error as exc:
                findings.append(Finding(name, FAILED, f"could not be checked: {exc}", "see the other findings"))
        return findings


def _check_server(connection: Connection, settings: Settings) -> Iterator[Finding]:
    zone = to_text(fetch_row(connection, tuple[str | bytes], "SELECT @@session.time_zone")[0])
    if zone == "+00:00":
        yield Finding("session time zone", OK, "UTC")
    else:
        yield Finding("session time zone", FAILED, zone, "do not set time_zone in init_connect")
    if settings.source_mode == OUTBOX:
        yield from check_triggers_allowed(connection, settings)


def _check_writes(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    option = find_write_block(connection)
    if option is None:
        yield Finding("writes", OK, "the server is not read-only")
    else:
        detail = f"the server is read-only ({option}): setup and source cannot write to it"
        yield Finding("writes", FAILED, detail, next_step_for(option))


def _check_cascades(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Check whether triggers see the changes that foreign keys make."""
    cascades = read_cascades(connection, settings)
    names = ", ".join(cascades.foreign_keys)
    if cascades.run_triggers:
        yield Finding("cascades", OK, f"{names}: the cascades run triggers (enable_cascade_triggers)")
    elif cascades.foreign_keys:
        if cascades.can_run_triggers:
            fix = (
                "SET PERSIST enable_cascade_triggers = ON, with innodb_native_foreign_keys = OFF; then let the shop "
                "connect again, because open connections keep the old value"
            )
        else:
            fix = "change rows of the table before those that they refer to, or run `lately verify --repair`"
        detail = f"{names} change rows of the table without running its triggers: these changes are not captured"
        yield Finding("cascades", WARNING, detail, fix)


def _check_table(connection: Connection, settings: Settings) -> Iterator[Finding]:
    table = settings.shop_table
    problems = find_column_problems(connection, settings)
    for problem in problems:
        yield Finding(problem.subject, FAILED, problem.problem, problem.fix)
    if any(problem.subject == "table" for problem in problems):
        return
    engine = guarantee.read_engine(connection, settings)
    if engine != "InnoDB":
        yield Finding("engine", FAILED, f"{table} is {engine}", f"ALTER TABLE {settings.source_table} ENGINE=InnoDB")
    else:
        yield Finding("engine", OK, engine)
    key = snapshot.read_chunk_columns(connection, settings)
    if key:
        yield Finding("primary key", OK, ", ".join(key))
    else:
        detail = "none that is suitable to read chunks: an interrupted snapshot restarts from the beginning"
        yield Finding("primary key", WARNING, detail, "add one")
    if problems:
        return
    columns = read_shop_columns(connection, settings)
    yield Finding("columns", OK, ", ".join(f"{name}={column.name}" for name, column in columns.items()))
    yield from _check_collations(connection, settings, columns)
    for name in COLUMNS:
        if name not in columns and name in OPTIONAL_COLUMNS:
            yield Finding(
                f"column {name}", WARNING, "the table has none", f"name it in LATELY_SOURCE_COLUMNS as {name}=…"
            )


def _check_collations(connection: Connection, settings: Settings, columns: Columns) -> Iterator[Finding]:
    rows = fetch_all(
        connection,
        tuple[str | bytes, str | bytes],
        "SELECT column_name, collation_name FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s AND collation_name IS NOT NULL",
        (settings.mysql_database, settings.source_table),
    )
    collations = {to_text(name): to_text(collation) for name, collation in rows}
    for name in ("user_id", "order_id", "product_name"):
        column = columns[name].name
        collation = collations.get(column)
        if collation is not None and not collation.endswith(("_bin", "_cs", "_as_cs")) and collation != "binary":
            yield Finding(
                f"collation of {column}", WARNING,
                f"{collation}: in SQL 'ann' and 'Ann' are equal, in Lately they are different",
                f"write each {name} in one spelling, or use utf8mb4_bin",
            )  # fmt: skip


def _check_rows(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Try a sample of rows against the rules: a row that breaks one is shown nowhere."""
    with suppress(BadSource):
        columns = read_shop_columns(connection, settings)
        price = columns["price"]
        if price.type in ("float", "double"):
            yield Finding(
                f"column {price.name}", WARNING,
                f"{price.type} is not exact, and a computed value can have more decimals than a price may have",
                "use DECIMAL",
            )  # fmt: skip
        sample = row_sample.read_sample(connection, settings)
        is_any_valid = sum(broken.count for broken in sample.broken.values()) < sample.rows
        for rule, broken in sample.broken.items():
            count = f"{broken.count:,} of {sample.rows:,} sampled rows"
            yield Finding(
                "rows", WARNING if is_any_valid else FAILED,
                f"{count} cannot be shown: {rule}; for example {broken.example}",
                "correct these rows, or name another column in LATELY_SOURCE_COLUMNS; `lately verify` counts all",
            )  # fmt: skip
        if not sample.broken:
            yield Finding("rows", OK, f"{sample.rows:,} sampled rows obey all rules")


def _check_outbox(connection: Connection, settings: Settings) -> Iterator[Finding]:
    with suppress(BadSource):
        if read_first_version(connection, settings) is None:
            yield Finding("outbox", FAILED, f"there is no {displayed_outbox(settings)}", "run `lately source setup`")
            return
        yield Finding("outbox", OK, displayed_outbox(settings))
        problem = outbox_ids.find_problem(connection, settings)
        if problem is not None:
            yield Finding("next id", FAILED, problem, "run `lately source setup`, which corrects it")
        yield from _check_triggers(connection, settings)


def _check_capture(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Report the problems that the running source reports too, but for those of other checks."""
    checked = {drift.TABLE, drift.ENGINE, drift.TRIGGER_OUTDATED, drift.TRIGGER_MISSING}
    checked |= {drift.TRIGGER_DOUBLED, drift.TRIGGER_ELSEWHERE, drift.DEFINER}
    if read_first_version(connection, settings) is None:
        checked.add(drift.OUTBOX_MISSING)
    for problem in drift.find_problems(read_capture(connection, settings)):
        if problem.kind not in checked:
            cause, _, fix = problem.message.partition(": ")
            yield Finding(problem.kind, FAILED if problem.is_critical else WARNING, cause, fix)


def _check_triggers(connection: Connection, settings: Settings) -> Iterator[Finding]:
    missing = triggers.find_missing(connection, settings)
    for name in missing:
        yield Finding(
            f"trigger {name}", FAILED, "missing or outdated: changes are not captured",
            "run `lately source setup`, which also publishes the present rows",
        )  # fmt: skip
    installed = read_triggers(connection, settings, everywhere=True)
    own_triggers = [trigger for trigger in installed if triggers.is_on_shop_table(trigger, settings)]
    for trigger in installed:
        if trigger not in own_triggers:
            yield Finding(
                f"trigger {trigger.name}", FAILED,
                f"it writes to the outbox, but is on {trigger.schema}.{trigger.table}",
                "run `lately source setup`, which removes it",
            )  # fmt: skip
    if not missing:
        repeated = len(own_triggers) - len({trigger.event for trigger in own_triggers})
        names = ", ".join(trigger.name for trigger in own_triggers)
        if repeated:
            yield Finding("triggers", FAILED, f"{names}: changes are captured twice", "run `lately source setup`")
        else:
            yield Finding("triggers", OK, f"{names} on {settings.shop_table}")


def _check_watermark(connection: Connection, settings: Settings) -> Iterator[Finding]:
    row = fetch_first(
        connection,
        tuple[str | bytes, str | bytes],
        "SELECT extra, column_key FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s AND column_name = %s",
        (settings.mysql_database, settings.source_table, settings.source_id),
    )
    name = f"column {settings.source_id}"
    if row is None:
        detail = "the table has no such column for the watermark"
        yield Finding(name, FAILED, detail, "set LATELY_SOURCE_ID to the AUTO_INCREMENT column")
    elif "auto_increment" not in to_text(row[0]).lower():
        yield Finding(name, FAILED, "it is not AUTO_INCREMENT", "set LATELY_SOURCE_ID to the AUTO_INCREMENT column")
    else:
        yield Finding(name, OK, "AUTO_INCREMENT")
    try:
        fetch_all(connection, tuple[int], f"SELECT 1 FROM {quote(settings.source_table)} LIMIT 1")
        yield Finding("privilege SELECT", OK, "")
    except mysql.connector.Error as exc:
        fix = f"GRANT SELECT ON `{settings.mysql_database}`.* TO the user"
        yield Finding("privilege SELECT", FAILED, exc.msg or str(exc), fix)
    yield Finding(
        "changes and removals", WARNING, "this mode captures new rows only",
        f"set LATELY_SOURCE_MODE={OUTBOX} to capture all changes",
    )  # fmt: skip


def _check_guarantee(connection: Connection, settings: Settings) -> Iterator[Finding]:
    assessment = guarantee.assess(connection, settings)
    result = OK if assessment.level == source_state.PROVEN else FAILED
    detail = "; ".join(reason.partition(": ")[0] for reason in assessment.reasons)
    fix = "; ".join(reason.partition(": ")[2] for reason in assessment.reasons if ": " in reason)
    yield Finding("guarantee", result, assessment.level + (f" ({detail})" if detail else ""), fix)
