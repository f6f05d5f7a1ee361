"""MariaDB (or the MySQL on the PATH) as a local process."""

import os
import shutil
from pathlib import Path

import mysql.connector

from local.artifacts import Artifacts
from local.process import LocalProcess, LocalServer, demand_port, free_port, run, wait_ready

SECONDS_TO_START = 60

SETTINGS = (
    "--bind-address=127.0.0.1",
    "--skip-networking=0",
    # Relative to the data folder: a socket's path may have 107 characters, a deep checkout has more.
    "--socket=server.sock",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_general_ci",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--performance-schema=OFF",
    "--max-connections=200",
    "--innodb-buffer-pool-size=128M",
    # Every commit reaches the kernel (safe over kill -9), the disk follows within a second.
    "--innodb-flush-log-at-trx-commit=2",
)
MARIADB_SETTINGS = ("--skip-ssl",)  # newer versions would turn TLS on by themselves, older ones not
MYSQL_SETTINGS = ("--mysqlx=OFF",)  # its second port is fixed


class MariaDB(LocalServer):
    """A database server with its data in `<folder>/mariadb`; its port stays the same over stop and start."""

    host = "127.0.0.1"
    user = "root"
    password = ""

    def __init__(self, artifacts: Artifacts, folder: Path, port: int, *options: str) -> None:
        self.artifacts = artifacts
        self.options = options
        self.folder = folder.absolute()
        self.port = port
        self.data = self.folder / "mariadb"
        # Of its own: at its start a server removes the temporary tables of all servers that share the folder.
        self.temporary = self.folder / "mariadb.tmp"
        self.env = {"TMPDIR": str(self.temporary)}
        self.is_mysql = "mariadb" not in run([str(artifacts.database), "--version"]).lower()
        self.process = LocalProcess("mariadb", self.command(), self.folder, self.env)

    def command(self) -> list[str]:
        """Return the command that runs the server."""
        own = MYSQL_SETTINGS if self.is_mysql else MARIADB_SETTINGS
        return [*self.program(), f"--datadir={self.data}", f"--port={self.port}", *SETTINGS, *own, *self.options]

    def program(self) -> list[str]:
        """Return the server's executable and what it needs to find itself."""
        base = [f"--basedir={self.artifacts.mariadb}"] if self.artifacts.mariadb else []
        as_root = ["--user=root"] if os.geteuid() == 0 else []  # else the server refuses to run as root
        return [str(self.artifacts.database), "--no-defaults", *base, *as_root]

    def start(self) -> None:
        """Start the server on its port and data; returns when it answers a query.

        Raises ServerFailed.
        """
        self.process.demand_stopped()
        demand_port(self.port)
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.initialise()
        self.process.start()
        try:
            wait_ready(self.process, self.answers, SECONDS_TO_START, "answer to SELECT 1")
        except BaseException:
            self.process.kill()
            raise

    def answers(self) -> bool:
        """Tell whether the server answers a query over TCP."""
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

    def initialise(self) -> None:
        """Create the data folder if there is none; a half-finished one is made anew.

        Raises ServerFailed.
        """
        if self.data.exists():
            return  # it got its name only when it was whole
        setup = self.folder / "mariadb.setup"
        shutil.rmtree(setup, ignore_errors=True)
        setup.mkdir(parents=True)
        if self.is_mysql:
            run([*self.program(), "--initialize-insecure", f"--datadir={setup / 'data'}"], setup, self.env)
        else:
            self.install_tables(setup)
        (setup / "data").rename(self.data)
        shutil.rmtree(setup)

    def install_tables(self, setup: Path) -> None:
        """Let MariaDB's own script create `<setup>/data`; raises ServerFailed."""
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
            run([script, *options], setup, self.env)
            return
        # The script breaks at spaces in paths, hence names without any; "data" alone would lie in the base.
        (setup / "base").symlink_to(self.artifacts.mariadb)
        run(["base/scripts/mariadb-install-db", "--basedir=./base", *options], setup, self.env)


def start_mariadb(artifacts: Artifacts, folder: Path, port: int | None = None, *options: str) -> MariaDB:
    """Start a database server with its data in `<folder>/mariadb`, and return it ready.

    Args: `port` is taken if it is free, else (or without it) another one; ask `.port`. `options` are of the server.
    Raises ServerFailed.
    """
    server = MariaDB(artifacts, folder, free_port(port), *options)
    server.start()
    return server
