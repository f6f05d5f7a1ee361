"""Gets what the peers need, once: Kafka Streams through Maven, Quix Streams into a venv of its own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from local.artifacts import DownloadFailed, MissingTool, find_java, read_last_lines

STREAMS = Path(__file__).with_name("streams")
#: In a venv of its own, because it may want other versions of what Lately uses.
QUIX = "quixstreams==3.28.1"


def streams_class_path(folder: Path) -> str:
    """Build bench/streams into `folder`/streams when its sources changed; return the class path.

    Raises MissingTool, DownloadFailed.
    """
    find_java()
    target = folder / "streams"
    sources = [STREAMS / "pom.xml", *sorted(STREAMS.rglob("*.java"))]
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = target / "stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        if shutil.which("mvn") is None:
            raise MissingTool("no mvn on the PATH: install Maven 3.6 or newer (Debian: apt install maven)")
        if shutil.which("javac") is None:
            raise MissingTool("no javac on the PATH: a JDK is needed, a JRE is not enough")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        command = [
            "mvn", "-B", "-Dstyle.color=never", "-f", str(STREAMS / "pom.xml"), f"-Dlately.output={target}",
            "compile", "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target / 'jars'}",
        ]  # fmt: skip
        # What was fetched before needs no network; only what is missing is asked for.
        _run([*command, "-o"], folder / "mvn.log") or _demand(command, folder / "mvn.log")
        stamp.write_text(wanted)
    return f"{target / 'classes'}:{target / 'jars'}/*"


def quix_python(folder: Path) -> Path:
    """Make the venv of Quix Streams when it is missing; return its python. Raises DownloadFailed."""
    venv, log = folder / "quix-venv", folder / "quix-venv.log"
    stamp = venv / "stamp"
    if not stamp.exists() or stamp.read_text() != QUIX:
        shutil.rmtree(venv, ignore_errors=True)
        _demand([sys.executable, "-m", "venv", str(venv)], log)
        _demand([str(venv / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", QUIX], log)
        stamp.write_text(QUIX)
    return venv / "bin/python"


def _run(command: list[str], log: Path) -> bool:
    with log.open("wb") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )  # fmt: skip
    return done.returncode == 0


def _demand(command: list[str], log: Path) -> None:
    if not _run(command, log):
        raise DownloadFailed(f"{command[0]} failed; the end of {log}:\n{read_last_lines(log, 25)}")
