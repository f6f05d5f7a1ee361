"""The common part of MariaDB and MySQL as local processes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mysql.connector

from local.artifacts import Artifacts
from local.process import LocalProcess, LocalServer, require_free_port, wait_ready

START_TIMEOUT_S = 60

SETTINGS = (
    "--bind-address=127.0.0.1",
    "--skip-networking=0",
    # Relative to the data folder: an absolute path could exceed the limit of 107 characters.
    "--socket=server.sock",
    "--skip-name-resolve",
    "--max-connections=200",
    "--innodb-buffer-pool-size=128M",
    # Every commit is written to the kernel, which survives a kill -9, and within a second to the
    # disk.
    "--innodb-flush-log-at-trx-commit=2",
)


class DatabaseServer(LocalServer):
    """A database server with its data in `<folder>/<product>`; all starts use the same port."""

    #: "mariadb" or "mysql": also the name of the process and of its log.
    product: str
    #: Command line options of the product, in addition to SETTINGS.
    product_settings: tuple[str, ...]

    host = "127.0.0.1"
    user = "root"
    password = ""

    def __init__(self, artifacts: Artifacts, folder: Path, port: int, *options: str) -> None:
        self.artifacts = artifacts
        self.options = options
        self.folder = folder.absolute()
        self.port = port
        self.data = self.folder / self.product
        # Not shared: at its start a server removes all temporary tables in this folder.
        self.temporary_folder = self.folder / f"{self.product}.tmp"
        self.env = {"TMPDIR": str(self.temporary_folder)}
        self.process = LocalProcess(self.product, self.command(), self.folder, self.env)

    def command(self) -> list[str]:
        """Return the command that runs the server."""
        return [
            *self.program(),
            f"--datadir={self.data}",
            f"--port={self.port}",
            *SETTINGS,
            *self.product_settings,
            *self.options,
        ]

    def program(self) -> list[str]:
        """Return the executable of the server and the options that every call of it needs."""
        basedir = [f"--basedir={self.artifacts.basedir}"] if self.artifacts.basedir else []
        as_root = ["--user=root"] if os.geteuid() == 0 else []  # otherwise the server refuses to run as root
        return [str(self.artifacts.database), "--no-defaults", *basedir, *as_root]

    def start(self) -> None:
        """Start the server, and return when it answers a query. Raises ServerFailed."""
        self.process.require_stopped()
        require_free_port(self.port)
        self.temporary_folder.mkdir(parents=True, exist_ok=True)
        self.initialize()
        self.process.start()
        try:
            wait_ready(self.process, self.is_answering, START_TIMEOUT_S, "answer to SELECT 1")
        except BaseException:
            self.process.kill()
            raise

    def is_answering(self) -> bool:
        """Return True if the server answers a query over TCP."""
        with mysql.connector.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            ssl_disabled=True,
            charset="utf8mb4",
            collation="utf8mb4_general_ci",
            connection_timeout=2,
        ) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT 1")
            return cursor.fetchall() == [(1,)]

    def initialize(self) -> None:
        """Create the data folder if it is missing or incomplete. Raises ServerFailed."""
        if self.data.exists():
            return  # it is renamed to this path when it is complete
        setup = self.folder / f"{self.product}.setup"
        shutil.rmtree(setup, ignore_errors=True)
        setup.mkdir(parents=True)
        self.create_data(setup)
        (setup / "data").rename(self.data)
        shutil.rmtree(setup)

    def create_data(self, setup: Path) -> None:
        """Create `<setup>/data` with the system tables. Raises ServerFailed."""
        raise NotImplementedError
