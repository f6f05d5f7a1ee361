"""Builds of the peers: Kafka Streams with Maven, Quix Streams in a venv."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from local.artifacts import find_java
from local.downloads import DownloadFailed, MissingTool, read_last_lines

STREAMS = Path(__file__).with_name("streams")
#: In a separate venv, because it may need other versions of Lately's dependencies.
QUIX = "quixstreams==3.28.1"


def streams_class_path(folder: Path) -> str:
    """Build bench/streams into `folder`/streams if its sources changed; return the class path.

    Raises MissingTool, DownloadFailed.
    """
    find_java()
    target = folder / "streams"
    sources = [STREAMS / "pom.xml", *sorted(STREAMS.rglob("*.java"))]
    source_hash = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = target / "stamp"
    if not stamp.exists() or stamp.read_text() != source_hash:
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
        # First offline: the network is needed only for files that are missing.
        _run([*command, "-o"], folder / "mvn.log") or _run_checked(command, folder / "mvn.log")
        stamp.write_text(source_hash)
    return f"{target / 'classes'}:{target / 'jars'}/*"


def quix_python(folder: Path) -> Path:
    """Return the python of the venv of Quix Streams, and create it first. Raises DownloadFailed."""
    venv, log = folder / "quix-venv", folder / "quix-venv.log"
    stamp = venv / "stamp"
    if not stamp.exists() or stamp.read_text() != QUIX:
        shutil.rmtree(venv, ignore_errors=True)
        _run_checked([sys.executable, "-m", "venv", str(venv)], log)
        _run_checked([str(venv / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", QUIX], log)
        stamp.write_text(QUIX)
    return venv / "bin/python"


def _run(command: list[str], log: Path) -> bool:
    with log.open("wb") as output:
        completed = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )  # fmt: skip
    return completed.returncode == 0


def _run_checked(command: list[str], log: Path) -> None:
    if not _run(command, log):
        raise DownloadFailed(f"{command[0]} failed; the end of {log}:\n{read_last_lines(log, 25)}")
