"""How fast our worker answers for one user: alone, and while it reads orders at full speed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

from bench.data import DataSet
from bench.measure import Bench
from bench.recovery import serves
from bench.report import circumstances, keep_raw, median, rounded, table
from bench.sides import BY_BOTH, BY_USER, ROOT, Place, can_leave_out, side
from local.process import wait_ready

HEADING = "Queries"
RATE = 50
DURING, ALONE, FLAT_OUT = (
    f"{RATE}/s while reading orders at full speed",
    f"{RATE}/s, no orders",
    "as fast as 8 connections can, no orders",
)
HOW = f"""\
`GET /v1/users/<user>/purchases` for random users, from one process with connections that stay open, on the same
machine. At {RATE}/s the queries start at fixed times whether or not earlier ones are answered. Milliseconds are from
sending the request to the last byte of the answer; all rounds together. Whatever is not a 200 is in the last column."""


def queries(bench: Bench, data: DataSet, rounds: int, seconds: float) -> str:
    """Ask in all three ways in every round and return the text of the section."""
    bench.prepare(data)
    ours = side(BY_USER if can_leave_out("by_product") else BY_BOTH)
    answers: dict[str, list[tuple[float, int]]] = {DURING: [], ALONE: [], FLAT_OUT: []}
    spent: dict[str, float] = dict.fromkeys(answers, 0.0)
    ingested = []

    def note(kind: str, said: dict) -> None:
        answers[kind] += said["answers"]
        spent[kind] += said["seconds"]

    for number in range(rounds):
        place = bench.place(data)
        with bench.running(place, ours.make(place)) as process:
            wait_ready(process, lambda place=place, process=process: serves(process, place), 90, "answer of /readyz")
            asking = ask(place, RATE, 0)
            try:
                ingested.append(bench.ingest(process, place).rate)
                note(DURING, told(asking))
                note(ALONE, told(ask(place, RATE, seconds)))
                note(FLAT_OUT, told(ask(place, 0, seconds)))
            finally:
                asking.kill()
                asking.wait()
        bench.say(f"queries, round {number + 1} of {rounds}: read {rounded(ingested[-1])} orders/s while asked")
    keep_raw("queries", {"answers": answers, "seconds": spent, "orders/s": ingested})
    shown = table(
        ["queries", "answers", "per second", "p50 ms", "p99 ms", "max ms", "not 200"],
        [row(kind, found, spent[kind]) for kind, found in answers.items()],
    )
    return (
        f"One worker, {ours.name}; {data}; rounds: {rounds}. It read {rounded(median(ingested))} orders/s (median) "
        f"while it was asked.\n\n{shown}\n\n{HOW}\n\n{circumstances()}"
    )


def ask(place: Place, rate: float, seconds: float) -> subprocess.Popen[str]:
    """Start bench/ask.py."""
    command = [sys.executable, "-m", "bench.ask", str(place.port), str(place.data.users), str(rate), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def told(asking: subprocess.Popen[str]) -> dict:
    """Close its standard input, which ends it at the latest, and return what it printed."""
    return json.loads(asking.communicate()[0])


def row(kind: str, answers: list[tuple[float, int]], seconds: float) -> list[str]:
    """One line of the table."""
    times = sorted(time for time, _ in answers)
    others = Counter(status or "no answer" for _, status in answers if status != 200)
    return [
        kind,
        f"{len(times):,}",
        rounded(len(times) / seconds),
        f"{part(times, 0.5):.2f}",
        f"{part(times, 0.99):.2f}",
        f"{times[-1]:.2f}",
        ", ".join(f"{count} x {status}" for status, count in others.items()) or "0",
    ]


def part(times: list[float], share: float) -> float:
    """The time that `share` of all (sorted) answers kept."""
    return times[min(int(len(times) * share), len(times) - 1)]
