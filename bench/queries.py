"""Response times for one user: idle, while the worker reads at full speed, and of other servers."""

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
from bench.recovery import is_worker_ready
from bench.report import describe_run, median, rounded, store_raw_numbers, table
from bench.sides import BY_BOTH, BY_USER, FOLDER, ROOT, RunContext, find_side, has_setting
from local.artifacts import resolve
from local.database import start_database
from local.database_server import DatabaseServer
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
FILL_TIMEOUT_S = 300
HOW = f"""\
`GET /v1/users/<user>/purchases` for random users, from one process with persistent connections, on
the same machine. At {RATE}/s the queries start at fixed times, even if earlier responses are
missing. The milliseconds are those from sending the request to the last byte of the response, of
all rounds together. The last column counts responses other than 200. The bare handler sends the
bytes that RocksDB contains for the user: it checks, sorts, signs and routes nothing. The service
with MariaDB queries the shop's own table, by its index on user and time, over 8 connections in
threads."""


def queries(bench: Bench, data: DataSet, rounds: int, seconds: float) -> str:
    """Ask in all ways in every round and return the text of the section."""
    bench.prepare(data)
    ours = find_side(BY_USER if has_setting("by_product") else BY_BOTH)
    kinds = (DURING, ALONE, FLAT_OUT, BARE, PURE, *((COMPILED,) if HAVE_CEXT else ()))
    answers: dict[str, list[tuple[float, int]]] = {kind: [] for kind in kinds}
    seconds_by_kind: dict[str, float] = dict.fromkeys(answers, 0.0)
    ingested = []

    def add_answers(kind: str, result: dict) -> None:
        answers[kind] += result["answers"]
        seconds_by_kind[kind] += result["seconds"]

    with orders_database(bench, data) as server:
        for number in range(rounds):
            context = bench.create_context(data)
            with bench.running(context, ours.create_process(context)) as process:
                wait_ready(
                    process, lambda context=context, process=process: is_worker_ready(process, context), 90, "answer"
                )
                client = start_query_client(context, RATE, 0)
                try:
                    ingested.append(bench.ingest(process, context).rate)
                    add_answers(DURING, finish_query_client(client))
                    add_answers(ALONE, finish_query_client(start_query_client(context, RATE, seconds)))
                    add_answers(FLAT_OUT, finish_query_client(start_query_client(context, 0, seconds)))
                finally:
                    client.kill()
                    client.wait()
            for kind, words in peer_commands(server, data).items():
                context = bench.create_context(data)
                with peer_server(context, words):
                    add_answers(kind, finish_query_client(start_query_client(context, 0, seconds)))
            bench.log(f"queries, round {number + 1} of {rounds}: read {rounded(ingested[-1])} orders/s during queries")
    store_raw_numbers("queries", {"answers": answers, "seconds": seconds_by_kind, "orders/s": ingested})
    results = table(
        ["queries", "answers", "per second", "p50 ms", "p99 ms", "max ms", "not 200"],
        [query_row(kind, results_of_kind, seconds_by_kind[kind]) for kind, results_of_kind in answers.items()],
    )
    return (
        f"One worker, {ours.name}; {data}; rounds: {rounds}. It read {rounded(median(ingested))} orders/s (median) "
        f"during the queries.\n\n{results}\n\n{HOW}\n\n{describe_run()}"
    )


def peer_commands(server: DatabaseServer, data: DataSet) -> dict[str, list[str]]:
    """Return kind -> command of each peer, with the placeholders "{folder}" and "{port}"."""
    per_user = str(max(1, data.orders // data.users))
    sql_service = ["bench.from_database", "{port}", str(server.port), "shop"]
    commands = {
        BARE: ["bench.bare_handler", "{port}", "{folder}", str(data.users), per_user],
        PURE: [*sql_service, "pure"],
    }
    return {**commands, COMPILED: [*sql_service, "c"]} if HAVE_CEXT else commands


@contextmanager
def orders_database(bench: Bench, data: DataSet) -> Iterator[DatabaseServer]:
    """Start a shop's database with the same number of orders and users."""
    folder = FOLDER / "run" / "queries"
    with start_database(resolve(ROOT / ".lately", bench.log), folder) as server:
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
def peer_server(context: RunContext, arguments: list[str]) -> Iterator[None]:
    """Start a peer that serves at the port of the context."""
    context.port = find_free_port()
    state = context.folder / "state"
    state.mkdir(parents=True)
    filled = [word.format(port=context.port, folder=state) for word in arguments]
    process = LocalProcess(filled[0].partition(".")[2], [sys.executable, "-m", *filled], context.folder, cwd=ROOT)
    try:
        process.start()
        wait_ready(process, lambda: is_listening(context.port), FILL_TIMEOUT_S, "connection")
        yield
    finally:
        process.kill()
        shutil.rmtree(state)


def is_listening(port: int) -> bool:
    """Return True if a server listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def start_query_client(context: RunContext, rate: float, seconds: float) -> subprocess.Popen[str]:
    """Start bench/query_client.py."""
    command = [
        sys.executable,
        "-m",
        "bench.query_client",
        str(context.port),
        str(context.data.users),
        str(rate),
        str(seconds),
    ]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish_query_client(client: subprocess.Popen[str]) -> dict:
    """Close the standard input of the client, which stops it, and return its output."""
    return json.loads(client.communicate()[0])


def query_row(kind: str, answers: list[tuple[float, int]], seconds: float) -> list[str]:
    """Return a row of the table."""
    times = sorted(time for time, _ in answers)
    failures = Counter(status or "no answer" for _, status in answers if status != 200)
    return [
        kind,
        f"{len(times):,}",
        rounded(len(times) / seconds),
        f"{quantile(times, 0.5):.2f}",
        f"{quantile(times, 0.99):.2f}",
        f"{times[-1]:.2f}",
        ", ".join(f"{count} x {status}" for status, count in failures.items()) or "0",
    ]


def quantile(times: list[float], share: float) -> float:
    """Return the time within which `share` of all responses arrived; `times` is sorted."""
    return times[min(int(len(times) * share), len(times) - 1)]
