"""`make bench`: Lately beside its peers on this machine, written to bench/results.md.

`python -m bench` runs every part, `python -m bench compare|growth|recovery|queries|source|history|elastic|pause|flow|
kept|partitions` one of them, `python -m bench capacity` the last three.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from bench import capacity, compare, elastic, growth, history, pause, queries, recovery, source
from bench.builds import quix_python, streams_class_path
from bench.data import DataSet
from bench.measure import Bench, clean_folder
from bench.report import write_section
from bench.sides import FOLDER, ROOT
from local.artifacts import DownloadFailed, MissingTool, resolve
from local.kafka import start_kafka
from local.process import ServerFailed, remove_pid_file, running_pid, stop_leftovers, write_pid_file

PARTS = (
    "compare", "growth", "recovery", "queries", "source", "history", "elastic", "pause", "flow", "kept", "partitions",
)  # fmt: skip
SEVERAL = {"all": PARTS, "capacity": PARTS[-3:]}
PID = FOLDER.with_name("bench.pid")


def options() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=(*SEVERAL, *PARTS), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over so many rounds (3)")
    parser.add_argument("--quick", action="store_true", help="one round with few orders, to try it all out")
    parser.add_argument("--orders", type=int, help="orders of compare (1,000,000), and before pause (100,000)")
    parser.add_argument("--users", type=int, default=200_000, help="users of compare (200,000)")
    parser.add_argument(
        "--only", action="append", help="compare, pause: only the sides with this in their name; repeatable"
    )
    parser.add_argument("--patience", type=float, default=120, help="seconds a side may take for one data set (120)")
    parser.add_argument("--results", type=Path, help="the file to write (bench/results.md, or .lately/bench/quick.md)")
    asked = parser.parse_args()
    if asked.quick:
        asked.orders, asked.users, asked.rounds = 50_000, 10_000, 1
    # Numbers of a trial run must never land among those that count.
    asked.results = asked.results or (FOLDER / "quick.md" if asked.quick else ROOT / "bench" / "results.md")
    return asked


def run(asked: argparse.Namespace) -> None:
    """Start the broker, run the parts and write each section as soon as it is known."""
    parts = SEVERAL.get(asked.part, (asked.part,))
    if {"compare", "recovery"} & set(parts):
        say("getting the peers, once …")
        streams_class_path(FOLDER)
        quix_python(FOLDER)
    data = DataSet(asked.orders or 1_000_000, asked.users)
    everyone = DataSet(50_000, 50_000) if asked.quick else DataSet(1_000_000, 1_000_000)
    # Not those of another part: orders are added to it.
    many = DataSet(60_000, 20_000) if asked.quick else DataSet(5_000_000, 500_000)
    several = DataSet(50_000, 10_000) if asked.quick else DataSet(2_000_000, 1_000_000)
    with start_kafka(resolve(ROOT / ".lately", say), FOLDER / "broker", full_jit=True) as kafka:
        bench = Bench(kafka, asked.patience, say)
        work = {
            "compare": (compare.HEADING, lambda: compare.compare(bench, data, asked.rounds, asked.only)),
            "growth": (growth.HEADING, lambda: growth.growth(bench, asked.rounds, asked.quick)),
            "recovery": (recovery.HEADING, lambda: recovery.recovery(bench, everyone, asked.rounds)),
            "queries": (
                queries.HEADING,
                lambda: queries.queries(bench, several, asked.rounds, 3 if asked.quick else 10),
            ),
            "source": (source.HEADING, lambda: source.source(bench, asked.rounds, asked.quick)),
            "history": (history.HEADING, lambda: history.history(bench, many)),
            "elastic": (elastic.HEADING, lambda: elastic.elastic(bench, 5 if asked.quick else 20)),
            "pause": (
                pause.HEADING,
                lambda: pause.pause(bench, asked.orders or 100_000, 5 if asked.quick else 15, asked.only),
            ),
            "flow": (capacity.FLOW_HEADING, lambda: capacity.on_the_way(bench, asked.quick)),
            "kept": (capacity.KEPT_HEADING, lambda: capacity.left_behind(bench, asked.quick)),
            "partitions": (capacity.SPREAD_HEADING, lambda: capacity.partitions(bench, asked.quick)),
        }
        for part in parts:
            heading, measure = work[part]
            write_section(asked.results, heading, measure())
            say(f"wrote {heading!r} to {asked.results}")
    # Gigabytes of orders; after a failure they stay. The logs of the sides always do, until the next run.
    shutil.rmtree(FOLDER / "broker", ignore_errors=True)


def main() -> int:
    """Exit 0 when everything is measured, 1 when something failed, 2 when a tool is missing or it runs already."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    asked = options()
    os.chdir(ROOT)
    for name in [name for name in os.environ if name.startswith(("LATELY_", "F_", "BENCH_"))]:
        del os.environ[name]  # what is set for somebody's own worker would reach ours
    other = running_pid(PID)
    if other is not None:
        print(f"bench: it is running already, as process {other}: stop that one first", file=sys.stderr)  # noqa: T201
        return 2
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        write_pid_file(PID, os.getpid())
        for folder in (FOLDER / "broker", *{pid.parent for pid in (FOLDER / "run").rglob("*.pid")}):
            stop_leftovers(folder)
        clean_folder()
        run(asked)
    except MissingTool as exc:
        print(f"bench: {exc}", file=sys.stderr)  # noqa: T201
        return 2
    except (DownloadFailed, ServerFailed) as exc:
        print(f"bench: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if running_pid(PID) == os.getpid():
            remove_pid_file(PID)
    return 0


def say(line: str) -> None:
    """One line of progress."""
    print(time.strftime("%H:%M:%S"), line, flush=True)  # noqa: T201


sys.exit(main())
