"""MySQL as a local process, with its defaults: binary log, TLS, caching_sha2_password."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from local.database_server import DatabaseServer
from local.downloads import file_lock
from local.process import run_command

#: MySQL itself creates root@localhost only, and --skip-name-resolve does not translate 127.0.0.1.
ACCOUNTS = """\
CREATE USER root@127.0.0.1 IDENTIFIED BY '';
GRANT ALL ON *.* TO root@127.0.0.1 WITH GRANT OPTION;
"""


class MySQL(DatabaseServer):
    """A MySQL server with its data in `<folder>/mysql`."""

    product = "mysql"
    product_settings = (
        "--mysqlx=OFF",  # its second port is fixed
        # Like the redo log: a commit survives a kill -9.
        "--sync-binlog=0",
    )

    def create_data(self, setup: Path) -> None:
        """Copy the template of a data folder to `<setup>/data`. Raises ServerFailed."""
        # Each server must have its own uuid, which auto.cnf contains.
        shutil.copytree(self.template(), setup / "data", ignore=shutil.ignore_patterns("auto.cnf"))

    def template(self) -> Path:
        """Return a data folder with the system tables; create it first if it is missing.

        MySQL needs some seconds to create one, and a copy takes a fraction of a second. Raises
        ServerFailed.
        """
        servers = self.artifacts.servers
        template = servers / f"mysql-data-{self.template_version()}"
        with file_lock(servers / "mysql-data.lock"):
            if template.exists():
                return template  # it is renamed to this path when it is complete
            for leftover in servers.glob("new-mysql-data-*"):
                shutil.rmtree(leftover)
            new = Path(tempfile.mkdtemp(prefix="new-mysql-data-", dir=servers))
            try:
                self.create_template(new)
                (new / "data").rename(template)
            finally:
                shutil.rmtree(new)
        return template

    def create_template(self, folder: Path) -> None:
        """Create `<folder>/data` with the system tables and the accounts. Raises ServerFailed."""
        accounts = folder / "accounts.sql"
        accounts.write_text(ACCOUNTS)
        run_command(
            [*self.program(), "--initialize-insecure", f"--datadir={folder / 'data'}", f"--init-file={accounts}"],
            env=self.env,
        )

    def template_version(self) -> str:
        """Return a name for this version of the server and of the accounts."""
        version = run_command([*self.program(), "--version"])
        return hashlib.sha256(f"{version}{ACCOUNTS}".encode()).hexdigest()[:12]
