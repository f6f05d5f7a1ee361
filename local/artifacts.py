"""Programs of the local servers: jars from Maven; MariaDB and MySQL from the PATH, or downloaded."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local.downloads import MARIADB_VERSIONS, MissingTool, fetch_kafka, fetch_mariadb, fetch_mysql

MARIADB, MYSQL = "mariadb", "mysql"
#: Selects another version of MariaDB than the default or the one on the PATH.
MARIADB_VERSION = "MARIADB_VERSION"
OLDEST_JAVA = 17


@dataclass(frozen=True)
class Artifacts:
    """The paths of the programs of the local servers."""

    java: Path
    jars: Path  # Kafka's class path
    product: str  # of the database server: MARIADB or MYSQL
    database: Path  # the executable of the database server
    basedir: Path | None  # the unpacked MariaDB; None if `database` finds its files itself
    servers: Path  # the folder for all that is downloaded


def default_product() -> str:
    """Return the database server that needs no download, or MARIADB if both need one."""
    return MYSQL if not installed_mariadb() and installed_mysql() else MARIADB


def resolve(state: Path, report: Callable[[str], None] = print, product: str = MARIADB) -> Artifacts:
    """Return the programs of the servers, and download them first if `<state>/servers` lacks them.

    `product` is the database server, MARIADB or MYSQL. `report` is called with each line of
    progress. Raises MissingTool, DownloadFailed.
    """
    java = find_java()
    servers = state.absolute() / "servers"
    jars = fetch_kafka(servers, report)
    if product == MYSQL:
        return Artifacts(java, jars, MYSQL, installed_mysql() or fetch_mysql(servers, report), None, servers)
    version = os.environ.get(MARIADB_VERSION)
    installed = None if version else installed_mariadb()
    if installed:
        return Artifacts(java, jars, MARIADB, installed, None, servers)
    basedir = fetch_mariadb(servers, version or MARIADB_VERSIONS[0], report)
    return Artifacts(java, jars, MARIADB, basedir / "bin" / "mariadbd", basedir, servers)


def find_java() -> Path:
    """Return the java of JAVA_HOME or of the PATH. Raises MissingTool."""
    advice = f"install a JDK {OLDEST_JAVA} or newer (Debian: apt install openjdk-{OLDEST_JAVA}-jdk-headless)"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        location = f"in JAVA_HOME ({home})" if home else "on the PATH"
        raise MissingTool(f"no java {location}: {advice}")
    version_output = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = java_version(version_output.stderr + version_output.stdout)
    if version is None or version < OLDEST_JAVA:
        raise MissingTool(f"{java} is version {version or 'unknown'}: {advice}")
    return Path(java)


def java_version(text: str) -> int | None:
    """Return the major version in the output of `java -version`."""
    match = re.search(r'version "(?:1\.)?(\d+)', text)  # Java 8 prints 1.8
    return int(match.group(1)) if match else None


def installed_mariadb() -> Path | None:
    """Return the mariadbd on the PATH, if its tools for a new data folder are complete.

    Debian's mariadb-server-core alone is incomplete: mariadb-client contains some of the tools.
    """
    mariadb = shutil.which("mariadbd")
    script = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
    return Path(mariadb) if mariadb and script and shutil.which("my_print_defaults") else None


def installed_mysql() -> Path | None:
    """Return the mysqld on the PATH, unless it is MariaDB under its old name."""
    mysqld = shutil.which("mysqld")
    if mysqld is None:
        return None
    version = subprocess.run([mysqld, "--no-defaults", "--version"], capture_output=True, text=True, check=False)
    return Path(mysqld) if version.returncode == 0 and "mariadb" not in version.stdout.lower() else None
