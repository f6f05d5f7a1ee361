"""The results as Markdown: a section for each part, with machine, versions and command."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.sides import FOLDER, HEAP, ROOT
from local.artifacts import find_java, java_version
from local.downloads import fetch_kafka

TITLE = """\
# Measured

`make bench` (`python -m bench`) writes this file; each part replaces only its own section.
"""
PARTS = ("faust-streaming", "mode-streaming", "aiokafka", "rocksdict", "msgspec", "aiohttp", "confluent-kafka")


def write_section(path: Path, heading: str, text: str) -> None:
    """Write `text` under `## heading` in the file; it replaces the section of this heading."""
    old = path.read_text() if path.exists() else TITLE
    before, *sections = re.split(r"^(?=## )", old, flags=re.MULTILINE)
    new = f"## {heading}\n\n{text.strip()}\n"
    positions = [number for number, section in enumerate(sections) if section.splitlines()[0] == f"## {heading}"]
    if positions:
        sections[positions[0]] = new
    else:
        sections.append(new)
    path.write_text("\n".join(part.strip() + "\n" for part in (before, *sections)))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def median(numbers: Iterable[float]) -> float:
    return statistics.median(list(numbers))


def rounded(number: float) -> str:
    """Format a rate with three significant digits."""
    places = 3 - len(str(int(number)))
    return f"{round(number, places):,.{max(places, 0)}f}" if number else "0"


def describe_run() -> str:
    """Return a text with time, command, machine and versions of this run."""
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    return f"Run on {when} by `{command}`.\n\nMachine: {describe_machine()}.\n\nVersions: {list_versions()}."


def describe_machine() -> str:
    """Return a text with cores, memory, processor and kernel."""
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)) / 2**20
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    model = match.group(1) if match else platform.machine()
    load = os.getloadavg()[1]
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}; "
        f"broker, side and observer share it; load average of the last 5 minutes at the end {load:.1f}"
    )


def list_versions() -> str:
    """Return a text with the versions of all installed components."""
    parts = [f"Lately {_version('lately')}", f"Python {platform.python_version()}"]
    parts += [f"{name} {_version(name)}" for name in PARTS]
    answer = subprocess.run([find_java(), "-version"], capture_output=True, text=True, check=False)
    parts.append(f"Java {java_version(answer.stderr)} (heap {HEAP} for Kafka Streams)")
    for jars, names in (
        (fetch_kafka(ROOT / ".lately/servers", print), ("kafka_2.13",)),
        (FOLDER / "streams/jars", ("kafka-streams", "rocksdbjni", "jackson-databind")),
    ):
        for name in names:
            parts += [path.stem.replace(f"{name}-", f"{name} ") for path in jars.glob(f"{name}-[0-9]*.jar")]
    quix = FOLDER / "quix-venv/stamp"
    if quix.exists():
        parts.append(quix.read_text().replace("==", " "))
    return ", ".join(parts)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def store_raw_numbers(part: str, numbers: object) -> None:
    """Store all numbers of a run as JSON in the folder of the benchmark."""
    (FOLDER / f"{part}.json").write_text(json.dumps(numbers, indent=1, default=vars))
