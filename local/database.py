"""The database server of the artifacts as a local process: MariaDB or MySQL."""

from __future__ import annotations

from pathlib import Path

from local.artifacts import MYSQL, Artifacts
from local.database_server import DatabaseServer
from local.mariadb import MariaDB
from local.mysql import MySQL
from local.process import find_free_port


def start_database(artifacts: Artifacts, folder: Path, port: int | None = None, *options: str) -> DatabaseServer:
    """Start the server with its data in `<folder>/<product>`, and return when it is ready.

    `port` is used if it is free; `.port` contains the actual port. `options` are command line
    options of the server. Raises ServerFailed.
    """
    product = MySQL if artifacts.product == MYSQL else MariaDB
    server = product(artifacts, folder, find_free_port(port), *options)
    server.start()
    return server
