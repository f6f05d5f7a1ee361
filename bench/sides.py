"""The sides of the comparison: their processes, with settings for the same work."""

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
#: The folder for builds, working files and results of the benchmark.
FOLDER = ROOT / ".lately" / "bench"

BY_USER = "lately by user"
BY_BOTH = "lately by user and by product"
ALL = "lately with similar products too"
STOCK = "stock Faust"
STREAMS = "Kafka Streams"
QUIX = "Quix Streams"
BARE = "bare loop"

#: The heap of the JVM. Its default, a quarter of the memory, would not show the need of this work.
HEAP = "1g"


@dataclass
class RunContext:
    """The context of one run: the broker, the data, a new consumer group and an empty folder."""

    kafka: str
    data: DataSet
    group: str
    port: int = field(default_factory=find_free_port)
    #: The name of the worker, if the group has several.
    name: str = ""

    @property
    def folder(self) -> Path:
        return FOLDER / "run" / self.group / self.name

    @property
    def env(self) -> dict[str, str]:
        """The environment variables for the programs in bench/."""
        return {
            "BENCH_KAFKA": self.kafka,
            "BENCH_TOPIC": self.data.topic,
            "BENCH_GROUP": self.group,
            "BENCH_FOLDER": str(self.folder / "state"),
            "BENCH_PARTITIONS": str(self.data.partitions),
        }


@dataclass(frozen=True)
class Side:
    """A side of the comparison.

    `max_orders` limits the data of a slow side. A self-timed side measures its own time.
    """

    name: str
    create_process: Callable[[RunContext], LocalProcess]
    max_orders: int | None = None
    is_self_timed: bool = False


def lately(context: RunContext, by_product: bool, similar: bool = False, root: Path = ROOT) -> LocalProcess:
    """Return a worker of Lately, with or without totals by product and similar products.

    `root` is the folder of its code.
    """
    env = {
        "LATELY_ID": context.group,
        "LATELY_TOPIC_PREFIX": context.data.prefix,
        "LATELY_KAFKA": context.kafka,
        "LATELY_PARTITIONS": str(context.data.partitions),
        "LATELY_WEB_PORT": str(context.port),
        "LATELY_DATA_DIR": str(context.folder / "state"),
    }
    for name, is_enabled in (("by_product", by_product), ("similar", similar)):
        if has_setting(name):
            env[f"LATELY_{name.upper()}"] = str(int(is_enabled))
    command = [sys.executable, "-m", "faust", "-A", "app", "worker", "-l", "info"]
    return LocalProcess("lately", command, context.folder, env=env, cwd=root)


def stock_faust(context: RunContext) -> LocalProcess:
    """Return a worker of Faust without changes, bench/stock_faust.py."""
    command = [sys.executable, "-m", "faust", "-A", "bench.stock_faust", "worker", "-l", "info", "--without-web"]
    return LocalProcess("stock-faust", command, context.folder, env=context.env, cwd=ROOT)


def kafka_streams(context: RunContext, threads: int) -> LocalProcess:
    """Return the Java program in bench/streams."""
    classes = streams_class_path(FOLDER)
    level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    command = [str(find_java()), f"-Xmx{HEAP}", level, "-cp", classes, "RecentPurchases"]
    env = {**context.env, "BENCH_THREADS": str(threads)}
    return LocalProcess("kafka-streams", command, context.folder, env=env, cwd=ROOT)


def quix_streams(context: RunContext) -> LocalProcess:
    """Return bench/quix.py in the venv of Quix Streams."""
    command = [str(quix_python(FOLDER)), "-m", "bench.quix"]
    return LocalProcess("quix-streams", command, context.folder, env=context.env, cwd=ROOT)


def bare_loop(context: RunContext) -> LocalProcess:
    """Return bench/bare_loop.py: no framework and no state."""
    command = [sys.executable, "-m", "bench.bare_loop"]
    return LocalProcess("bare-loop", command, context.folder, env=context.env, cwd=ROOT)


def has_setting(name: str) -> bool:
    """Return True if this version of Lately has the setting `name`, "by_product" or "similar".

    Older versions always count totals by product, and never similar products.
    """
    return name in {field.name for field in dataclasses.fields(Settings)}


#: All sides in the order of the table.
SIDES = (
    Side(BY_USER, lambda context: lately(context, by_product=False)),
    Side(BY_BOTH, lambda context: lately(context, by_product=True)),
    Side(ALL, lambda context: lately(context, by_product=True, similar=True)),
    Side(STOCK, stock_faust, max_orders=60_000),
    Side(f"{STREAMS}, 1 thread", lambda context: kafka_streams(context, 1)),
    Side(f"{STREAMS}, 2 threads", lambda context: kafka_streams(context, 2)),
    Side(QUIX, quix_streams),
    Side(BARE, bare_loop, is_self_timed=True),
)


def find_side(name: str) -> Side:
    """Return the side with this name."""
    return next(side for side in SIDES if side.name == name)
