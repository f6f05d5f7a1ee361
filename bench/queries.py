"""How fast our worker answers for one user: alone, while it reads orders at full speed, and beside other servers."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

import mysql.connector
from mysql.connector import HAVE_CEXT

from bench.data import DataSet
from bench.measure import Bench
from bench.recovery import serves
from bench.report import circumstances, keep_raw, median, rounded, table
from bench.sides import BY_BOTH, BY_USER, FOLDER, ROOT, Place, can_leave_out, side
from local.artifacts import resolve
from local.mariadb import MariaDB, start_mariadb
from local.process import LocalProcess, find_free_port, wait_ready
from local.shop import TABLE

HEADING = "Queries"
RATE = 50
DURING, ALONE, FLAT_OUT = (
    f"{RATE}/s while reading orders at full speed",
    f"{RATE}/s, no orders",
    "as fast as 16 connections can, no orders",
)
BARE = "the same of a bare aiohttp handler over RocksDB"
PURE, COMPILED = (f"the same of an aiohttp service that asks MariaDB, {kind} connector" for kind in ("pure", "C"))
SECONDS_TO_FILL = 300
HOW = f"""\
`GET /v1/users/<user>/purchases` for random users, from one process with connections that stay open, on the same
machine. At {RATE}/s the queries start at fixed times whether or not earlier ones are answered. Milliseconds are from
sending the request to the last byte of the answer; all rounds together. Whatever is not a 200 is in the last column.
The bare handler sends bytes that RocksDB has for the user as they are: it checks, sorts, signs and routes nothing. The
service beside MariaDB asks the shop's own table, by its index on user and time, over 8 connections in threads."""


def queries(bench: Bench, data: DataSet, rounds: int, seconds: float) -> str:
    """Ask in all ways in every round and return the text of the section."""
    bench.prepare(data)
    ours = side(BY_USER if can_leave_out("by_product") else BY_BOTH)
    kinds = (DURING, ALONE, FLAT_OUT, BARE, PURE, *((COMPILED,) if HAVE_CEXT else ()))
    answers: dict[str, list[tuple[float, int]]] = {kind: [] for kind in kinds}
    spent: dict[str, float] = dict.fromkeys(answers, 0.0)
    ingested = []

    def note(kind: str, said: dict) -> None:
        answers[kind] += said["answers"]
        spent[kind] += said["seconds"]

    with database(bench, data) as server:
        for number in range(rounds):
            place = bench.place(data)
            with bench.running(place, ours.make(place)) as process:
                wait_ready(process, lambda place=place, process=process: serves(process, place), 90, "answer")
                asking = ask(place, RATE, 0)
                try:
                    ingested.append(bench.ingest(process, place).rate)
                    note(DURING, told(asking))
                    note(ALONE, told(ask(place, RATE, seconds)))
                    note(FLAT_OUT, told(ask(place, 0, seconds)))
                finally:
                    asking.kill()
                    asking.wait()
            for kind, words in peers(server, data).items():
                place = bench.place(data)
                with other(place, words):
                    note(kind, told(ask(place, 0, seconds)))
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


def peers(server: MariaDB, data: DataSet) -> dict[str, list[str]]:
    """The program of each peer; "{folder}" and "{port}" are yet to be filled in."""
    per_user = str(max(1, data.orders // data.users))
    asking = ["bench.from_database", "{port}", str(server.port), "shop"]
    found = {BARE: ["bench.bare_handler", "{port}", "{folder}", str(data.users), per_user], PURE: [*asking, "pure"]}
    return {**found, COMPILED: [*asking, "c"]} if HAVE_CEXT else found


@contextmanager
def database(bench: Bench, data: DataSet) -> Iterator[MariaDB]:
    """The shop's database with as many orders of as many users."""
    folder = FOLDER / "run" / "queries"
    with start_mariadb(resolve(ROOT / ".lately", bench.say), folder) as server:
        connection = mysql.connector.connect(
            host=server.host, port=server.port, user=server.user, charset="utf8mb4",
            collation="utf8mb4_general_ci", use_pure=True,
        )  # fmt: skip
        with closing(connection), closing(connection.cursor()) as cursor:
            cursor.execute("CREATE DATABASE shop")
            cursor.execute("USE shop")
            cursor.execute(TABLE)
            cursor.execute(
                "INSERT INTO orders SELECT CONCAT('o', seq), CONCAT('Headset ', MOD(seq, 50)),"
                " CONCAT('user-', LPAD(MOD(seq, %s), 7, '0')), 9.90 + MOD(seq, 1000),"
                " '2026-01-01' + INTERVAL seq SECOND, 'card', 'phones' FROM seq_1_to_100000000 WHERE seq <= %s",
                (data.users, data.orders),
            )
            connection.commit()
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def other(place: Place, words: list[str]) -> Iterator[None]:
    """A peer that answers at the place's port."""
    place.port = find_free_port()
    state = place.folder / "state"
    state.mkdir(parents=True)
    filled = [word.format(port=place.port, folder=state) for word in words]
    process = LocalProcess(filled[0].partition(".")[2], [sys.executable, "-m", *filled], place.folder, cwd=ROOT)
    try:
        process.start()
        wait_ready(process, lambda: listens(place.port), SECONDS_TO_FILL, "connection")
        yield
    finally:
        process.kill()
        shutil.rmtree(state)


def listens(port: int) -> bool:
    """Whether somebody answers at the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def ask(place: Place, rate: float, seconds: float) -> subprocess.Popen[str]:
    """Start bench/query_client.py."""
    command = [
        sys.executable,
        "-m",
        "bench.query_client",
        str(place.port),
        str(place.data.users),
        str(rate),
        str(seconds),
    ]
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
