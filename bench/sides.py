"""The sides: for each the process to start, with settings that ask the same work of all."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from app.settings import Settings
from bench.builds import quix_python, streams_class_path
from bench.data import DataSet
from local.artifacts import find_java
from local.process import LocalProcess, find_free_port

ROOT = Path(__file__).resolve().parent.parent
#: Where everything is built, started and kept while it is measured.
FOLDER = ROOT / ".lately" / "bench"

BY_USER = "lately by user"
BY_BOTH = "lately by user and by product"
ALL = "lately with similar products too"
STOCK = "stock Faust"
STREAMS = "Kafka Streams"
QUIX = "Quix Streams"
BARE = "bare loop"

#: The heap of the JVM. Its own choice, a quarter of the machine, would say little about what the work needs.
HEAP = "1g"


@dataclass
class Place:
    """Where one side runs once: the broker, the data, a group of its own and an empty folder of its own."""

    kafka: str
    data: DataSet
    group: str
    port: int = field(default_factory=find_free_port)
    #: Of several workers of one group, which one.
    name: str = ""

    @property
    def folder(self) -> Path:
        return FOLDER / "run" / self.group / self.name

    @property
    def env(self) -> dict[str, str]:
        """What the programs in bench/ read."""
        return {
            "BENCH_KAFKA": self.kafka,
            "BENCH_TOPIC": self.data.topic,
            "BENCH_GROUP": self.group,
            "BENCH_FOLDER": str(self.folder / "state"),
            "BENCH_PARTITIONS": str(self.data.partitions),
        }


@dataclass(frozen=True)
class Side:
    """One side: how to start it, and whether it is too slow for all of the data or tells the time itself."""

    name: str
    make: Callable[[Place], LocalProcess]
    bound: int | None = None
    own_clock: bool = False


def lately(place: Place, by_product: bool, similar: bool = False) -> LocalProcess:
    """Our worker, with what it keeps beside the purchases by user."""
    env = {
        "LATELY_ID": place.group,
        "LATELY_TOPIC_PREFIX": place.data.prefix,
        "LATELY_KAFKA": place.kafka,
        "LATELY_PARTITIONS": str(place.data.partitions),
        "LATELY_WEB_PORT": str(place.port),
        "LATELY_DATA_DIR": str(place.folder / "state"),
    }
    for name, wanted in (("by_product", by_product), ("similar", similar)):
        if can_leave_out(name):
            env[f"LATELY_{name.upper()}"] = str(int(wanted))
    command = [sys.executable, "-m", "faust", "-A", "app", "worker", "-l", "info"]
    return LocalProcess("lately", command, place.folder, env=env, cwd=ROOT)


def stock_faust(place: Place) -> LocalProcess:
    """Faust as it is."""
    command = [sys.executable, "-m", "faust", "-A", "bench.stock_faust", "worker", "-l", "info", "--without-web"]
    return LocalProcess("stock-faust", command, place.folder, env=place.env, cwd=ROOT)


def kafka_streams(place: Place, threads: int) -> LocalProcess:
    """The Java program in bench/streams."""
    classes = streams_class_path(FOLDER)
    level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    command = [str(find_java()), f"-Xmx{HEAP}", level, "-cp", classes, "RecentPurchases"]
    env = {**place.env, "BENCH_THREADS": str(threads)}
    return LocalProcess("kafka-streams", command, place.folder, env=env, cwd=ROOT)


def quix_streams(place: Place) -> LocalProcess:
    """bench/quix.py in the venv of Quix Streams."""
    command = [str(quix_python(FOLDER)), "-m", "bench.quix"]
    return LocalProcess("quix-streams", command, place.folder, env=place.env, cwd=ROOT)


def bare_loop(place: Place) -> LocalProcess:
    """No framework and no state."""
    command = [sys.executable, "-m", "bench.bare_loop"]
    return LocalProcess("bare-loop", command, place.folder, env=place.env, cwd=ROOT)


def can_leave_out(what: str) -> bool:
    """Whether this Lately has a setting for `what`: "by_product", "similar". An older version always keeps the totals
    by product, and never similar products.
    """
    return what in {one.name for one in dataclasses.fields(Settings)}


#: In the order of the table.
SIDES = (
    Side(BY_USER, lambda place: lately(place, by_product=False)),
    Side(BY_BOTH, lambda place: lately(place, by_product=True)),
    Side(ALL, lambda place: lately(place, by_product=True, similar=True)),
    Side(STOCK, stock_faust, bound=60_000),
    Side(f"{STREAMS}, 1 thread", lambda place: kafka_streams(place, 1)),
    Side(f"{STREAMS}, 2 threads", lambda place: kafka_streams(place, 2)),
    Side(QUIX, quix_streams),
    Side(BARE, bare_loop, own_clock=True),
)


def side(name: str) -> Side:
    """The side of this name."""
    return next(one for one in SIDES if one.name == name)
