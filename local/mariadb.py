"""MariaDB as a local process."""

from __future__ import annotations

import shutil
from pathlib import Path

from local.database_server import DatabaseServer
from local.process import run_command


class MariaDB(DatabaseServer):
    """A MariaDB server with its data in `<folder>/mariadb`, without a binary log and TLS."""

    product = "mariadb"
    product_settings = (
        "--character-set-server=utf8mb4",
        "--collation-server=utf8mb4_general_ci",
        "--skip-log-bin",
        "--performance-schema=OFF",
        "--skip-ssl",  # newer versions enable TLS by default
    )

    def create_data(self, setup: Path) -> None:
        """Create `<setup>/data` with the script of MariaDB. Raises ServerFailed."""
        options = [
            "--no-defaults",
            "--datadir=./data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            "--force",
        ]
        if self.artifacts.basedir is None:
            script = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
            assert script is not None, "installed_mariadb() checks that the script is on the PATH"
            run_command([script, *options], setup, self.env)
            return
        # The script fails for paths with spaces, hence the relative paths. It resolves "data"
        # without "./" in the base folder.
        (setup / "base").symlink_to(self.artifacts.basedir)
        run_command(["base/scripts/mariadb-install-db", "--basedir=./base", *options], setup, self.env)
