"""`make bench`: measures Lately and its peers on this machine, and writes bench/results.md.

`python -m bench` runs all parts; `python -m bench PART` runs one of compare, growth, recovery,
queries, source, reads, history, elastic, lists, products, pause, flow, kept and partitions;
`python -m bench capacity` runs the last three, and `python -m bench elastic` also runs lists.
`python -m bench versions --before FOLDER` compares this version with another checkout.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from bench import (
    capacity,
    compare,
    elastic,
    elastic_lists,
    growth,
    history,
    mysql_reads,
    pause,
    product_lists,
    queries,
    recovery,
    source,
    versions,
)
from bench.builds import quix_python, streams_class_path
from bench.data import DataSet
from bench.measure import Bench, clean_folder
from bench.report import write_section
from bench.sides import FOLDER, ROOT
from local.artifacts import MARIADB, MYSQL, resolve
from local.downloads import DownloadFailed, MissingTool
from local.kafka import start_kafka
from local.process import ServerFailed, remove_pid_file, running_pid, stop_leftovers, write_pid_file

PARTS = (
    "compare", "growth", "recovery", "queries", "source", "reads", "history", "elastic", "lists", "products",
    "pause", "flow", "kept", "partitions",
)  # fmt: skip
PART_GROUPS = {"all": PARTS, "capacity": PARTS[-3:], "elastic": ("elastic", "lists")}
#: Needs another checkout, and is therefore not among all parts.
VERSIONS = "versions"
PID_FILE = FOLDER.with_name("bench.pid")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=dict.fromkeys((*PART_GROUPS, *PARTS, VERSIONS)), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; the results are medians (3)")
    parser.add_argument("--quick", action="store_true", help="one round with few orders, as a trial")
    parser.add_argument("--orders", type=int, help="orders of compare (1,000,000), and before pause (100,000)")
    parser.add_argument("--users", type=int, default=200_000, help="users of compare (200,000)")
    parser.add_argument(
        "--only", action="append", help="compare, pause: only the sides whose name contains this text; repeatable"
    )
    parser.add_argument(
        "--database", choices=(MARIADB, MYSQL), default=MARIADB, help="source: the server of the shop (mariadb)"
    )
    parser.add_argument("--before", type=Path, help="versions: the folder of the other checkout")
    parser.add_argument("--patience", type=float, default=120, help="seconds a side may take for one data set (120)")
    parser.add_argument("--results", type=Path, help="the file to write (bench/results.md, or .lately/bench/quick.md)")
    arguments = parser.parse_args()
    if (arguments.part == VERSIONS) != (arguments.before is not None):
        parser.error("versions needs --before, and no other part has it")
    if arguments.quick:
        arguments.orders, arguments.users, arguments.rounds = 50_000, 10_000, 1
    # The numbers of a trial run must not replace those of a full run.
    arguments.results = arguments.results or (FOLDER / "quick.md" if arguments.quick else ROOT / "bench" / "results.md")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Start the broker, run the parts, and write each section when its part has finished."""
    parts = PART_GROUPS.get(arguments.part, (arguments.part,))
    if {"compare", "recovery"} & set(parts):
        log("downloading the peers (only once) …")
        streams_class_path(FOLDER)
        quix_python(FOLDER)
    data = DataSet(arguments.orders or 1_000_000, arguments.users)
    recovery_data = DataSet(50_000, 50_000) if arguments.quick else DataSet(1_000_000, 1_000_000)
    # A data set of its own, because this part adds orders to the topic.
    history_data = DataSet(60_000, 20_000) if arguments.quick else DataSet(5_000_000, 500_000)
    query_data = DataSet(50_000, 10_000) if arguments.quick else DataSet(2_000_000, 1_000_000)
    with start_kafka(resolve(ROOT / ".lately", log), FOLDER / "broker", full_jit=True) as kafka:
        bench = Bench(kafka, arguments.patience, log)
        work = {
            "compare": (compare.HEADING, lambda: compare.compare(bench, data, arguments.rounds, arguments.only)),
            "growth": (growth.HEADING, lambda: growth.growth(bench, arguments.rounds, arguments.quick)),
            "recovery": (recovery.HEADING, lambda: recovery.recovery(bench, recovery_data, arguments.rounds)),
            "queries": (
                queries.HEADING,
                lambda: queries.queries(bench, query_data, arguments.rounds, 3 if arguments.quick else 10),
            ),
            "source": (
                source.HEADINGS[arguments.database],
                lambda: source.source(bench, arguments.rounds, arguments.quick, arguments.database),
            ),
            "reads": (mysql_reads.HEADING, lambda: mysql_reads.mysql_reads(log, arguments.rounds, arguments.quick)),
            "history": (history.HEADING, lambda: history.history(bench, history_data)),
            "elastic": (elastic.HEADING, lambda: elastic.elastic(bench, 5 if arguments.quick else 20)),
            "lists": (
                elastic_lists.HEADING,
                lambda: elastic_lists.elastic_lists(bench, *((10, 15_000) if arguments.quick else (30, 60_000))),
            ),
            "products": (
                product_lists.HEADING,
                lambda: product_lists.product_lists(bench, arguments.rounds, arguments.quick),
            ),
            VERSIONS: (
                versions.HEADING,
                lambda: versions.versions(bench, data, arguments.rounds, arguments.before),
            ),
            "pause": (
                pause.HEADING,
                lambda: pause.pause(bench, arguments.orders or 100_000, 5 if arguments.quick else 15, arguments.only),
            ),
            "flow": (capacity.PATH_COST_HEADING, lambda: capacity.path_cost_section(bench, arguments.quick)),
            "kept": (capacity.FOOTPRINT_HEADING, lambda: capacity.footprint_section(bench, arguments.quick)),
            "partitions": (
                capacity.PARTITION_COST_HEADING,
                lambda: capacity.partition_cost_section(bench, arguments.quick),
            ),
        }
        for part in parts:
            heading, measure = work[part]
            write_section(arguments.results, heading, measure())
            log(f"wrote {heading!r} to {arguments.results}")
    # Gigabytes of orders. They remain after a failure; the logs of the sides always remain until
    # the next run.
    shutil.rmtree(FOLDER / "broker", ignore_errors=True)


def main() -> int:
    """Run the benchmark, and return the exit code.

    0: all parts are measured. 1: a part failed. 2: a tool is missing, or the benchmark is running
    already.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments = parse_arguments()
    os.chdir(ROOT)
    for name in [name for name in os.environ if name.startswith(("LATELY_", "F_", "BENCH_"))]:
        del os.environ[name]  # not for the workers of the benchmark
    running = running_pid(PID_FILE)
    if running is not None:
        print(f"bench: it is running already, as process {running}: stop that process first", file=sys.stderr)  # noqa: T201
        return 2
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        write_pid_file(PID_FILE, os.getpid())
        for folder in (FOLDER / "broker", *{pid.parent for pid in (FOLDER / "run").rglob("*.pid")}):
            stop_leftovers(folder)
        clean_folder()
        run(arguments)
    except MissingTool as exc:
        print(f"bench: {exc}", file=sys.stderr)  # noqa: T201
        return 2
    except (DownloadFailed, ServerFailed) as exc:
        print(f"bench: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if running_pid(PID_FILE) == os.getpid():
            remove_pid_file(PID_FILE)
    return 0


def log(line: str) -> None:
    """Print a line of progress."""
    print(time.strftime("%H:%M:%S"), line, flush=True)  # noqa: T201


sys.exit(main())
