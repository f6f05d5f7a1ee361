"""MariaDB (or the MySQL on the PATH) as a local process."""

import os
import shutil
from pathlib import Path

import mysql.connector

from local.artifacts import Artifacts
from local.process import LocalProcess, LocalServer, find_free_port, require_free_port, run_command, wait_ready

START_TIMEOUT_S = 60

SETTINGS = (
    "--bind-address=127.0.0.1",
    "--skip-networking=0",
    # Relative to the data folder: an absolute path could exceed the limit of 107 characters.
    "--socket=server.sock",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_general_ci",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--performance-schema=OFF",
    "--max-connections=200",
    "--innodb-buffer-pool-size=128M",
    # Every commit is written to the kernel, which survives a kill -9, and within a second to the
    # disk.
    "--innodb-flush-log-at-trx-commit=2",
)
MARIADB_SETTINGS = ("--skip-ssl",)  # newer versions enable TLS by default
MYSQL_SETTINGS = ("--mysqlx=OFF",)  # its second port is fixed


class MariaDB(LocalServer):
    """A database server with its data in `<folder>/mariadb`; all starts use the same port."""

    host = "127.0.0.1"
    user = "root"
    password = ""

    def __init__(self, artifacts: Artifacts, folder: Path, port: int, *options: str) -> None:
        self.artifacts = artifacts
        self.options = options
        self.folder = folder.absolute()
        self.port = port
        self.data = self.folder / "mariadb"
        # Not shared: at its start a server removes all temporary tables in this folder.
        self.temporary_folder = self.folder / "mariadb.tmp"
        self.env = {"TMPDIR": str(self.temporary_folder)}
        self.is_mysql = "mariadb" not in run_command([str(artifacts.database), "--version"]).lower()
        self.process = LocalProcess("mariadb", self.command(), self.folder, self.env)

    def command(self) -> list[str]:
        """Return the command that runs the server."""
        product_settings = MYSQL_SETTINGS if self.is_mysql else MARIADB_SETTINGS
        return [
            *self.program(),
            f"--datadir={self.data}",
            f"--port={self.port}",
            *SETTINGS,
            *product_settings,
            *self.options,
        ]

    def program(self) -> list[str]:
        """Return the executable of the server and the options that every call of it needs."""
        basedir = [f"--basedir={self.artifacts.mariadb}"] if self.artifacts.mariadb else []
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
        setup = self.folder / "mariadb.setup"
        shutil.rmtree(setup, ignore_errors=True)
        setup.mkdir(parents=True)
        if self.is_mysql:
            run_command([*self.program(), "--initialize-insecure", f"--datadir={setup / 'data'}"], setup, self.env)
        else:
            self.install_tables(setup)
        (setup / "data").rename(self.data)
        shutil.rmtree(setup)

    def install_tables(self, setup: Path) -> None:
        """Create `<setup>/data` with the script of MariaDB. Raises ServerFailed."""
        options = [
            "--no-defaults",
            "--datadir=./data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            "--force",
        ]
        if self.artifacts.mariadb is None:
            script = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
            assert script is not None, "installed_database() checks that the script is on the PATH"
            run_command([script, *options], setup, self.env)
            return
        # The script fails for paths with spaces, hence the relative paths. It resolves "data"
        # without "./" in the base folder.
        (setup / "base").symlink_to(self.artifacts.mariadb)
        run_command(["base/scripts/mariadb-install-db", "--basedir=./base", *options], setup, self.env)


def start_mariadb(artifacts: Artifacts, folder: Path, port: int | None = None, *options: str) -> MariaDB:
    """Start a database server with its data in `<folder>/mariadb`, and return when it is ready.

    `port` is used if it is free; `.port` contains the actual port. `options` are command line
    options of the server. Raises ServerFailed.
    """
    server = MariaDB(artifacts, folder, find_free_port(port), *options)
    server.start()
    return server
