"""Variables and objects of the shop's server with which the triggers cannot work."""

from __future__ import annotations

from collections.abc import Iterator

from app.errors import BadSource, DatabaseAway
from app.settings import Settings
from source.columns import ColumnProblem
from source.mysql import Connection, fetch_first, to_text
from source.server_role import read_variable

_STATEMENT_FORMAT = (
    "the server writes statements into its binary log (binlog_format=STATEMENT), and refuses the statements of Lately"
)
_STATEMENT_STEP = "SET GLOBAL binlog_format = ROW, also in the server's configuration file; then reconnect the shop"


def find_server_problems(connection: Connection, settings: Settings) -> Iterator[ColumnProblem]:
    """Yield what makes a setup impossible, each with the next step. Raises mysql.connector.Error."""
    if _is_view(connection, settings):
        yield ColumnProblem(
            "table", f"{settings.shop_table} is a view, and views have no triggers",
            "set LATELY_SOURCE_TABLE to the table below it, or LATELY_SOURCE_MODE=watermark",
        )  # fmt: skip
    if logs_statements(connection):
        yield ColumnProblem("binlog format", _STATEMENT_FORMAT, _STATEMENT_STEP)


def require_suitable(connection: Connection, settings: Settings) -> None:
    """Raise BadSource if a setup is impossible on this server."""
    for problem in find_server_problems(connection, settings):
        raise BadSource(f"{problem.problem}: {problem.fix}")


def require_row_format(connection: Connection) -> None:
    """Raise DatabaseAway if rows of the outbox cannot be deleted at present.

    Without this check the same rows would be published again and again.
    """
    if logs_statements(connection):
        raise DatabaseAway(f"{_STATEMENT_FORMAT}: {_STATEMENT_STEP}")


def logs_statements(connection: Connection) -> bool:
    """Return whether the binary log of the server contains statements only."""
    is_logging = read_variable(connection, "log_bin") == "ON"
    return is_logging and read_variable(connection, "binlog_format") == "STATEMENT"


def _is_view(connection: Connection, settings: Settings) -> bool:
    row = fetch_first(
        connection,
        tuple[str | bytes],
        "SELECT table_type FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
        (settings.mysql_database, settings.source_table),
    )
    return row is not None and "VIEW" in to_text(row[0]).upper()
