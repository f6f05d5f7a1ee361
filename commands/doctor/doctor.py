"""`lately doctor`: check everything that Lately needs, change nothing.

Each finding contains its fix.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import aiohttp
import mysql.connector

from app.control import generation, identity, source_state, state_topic
from app.kafka import dead_letter_topic
from app.kafka.admin import missing_topics
from app.kafka.order_log import open_order_log
from app.settings import Settings
from chunks import UnsupportedLibrary, check_libraries
from commands.doctor.security import check_security
from domain.errors import LatelyError
from domain.values import rfc3339
from source.check import check_source
from source.findings import FAILED, OK, WARNING, Finding
from source.mysql import connect, read_server_time

#: Less free disk space than this is a failure or a warning, bytes.
FAILURE_FREE_BYTES, WARNING_FREE_BYTES = 2**30, 5 * 2**30
#: A larger difference between the clocks makes `lag_ms` and `as_of` wrong, s.
MAX_SKEW_S = 1.0
READY_TIMEOUT_S = 5


def check_everything(settings: Settings) -> Iterator[Finding]:
    """Yield all findings, one after the other; a check that cannot be done is a finding too."""
    checks: dict[str, Callable[[Settings], Iterator[Finding]]] = {
        "libraries": _check_libraries,
        "disk": _check_disk,
        "kafka": _check_kafka,
        "events": _check_events,
        "security": check_security,
        "mysql": _check_mysql,
        "clocks": _check_clocks,
        "source": _check_source,
        "worker": _check_worker,
        "dead letters": _check_dead_letters,
    }
    for name, check in checks.items():
        try:
            yield from check(settings)
        except (LatelyError, UnsupportedLibrary) as exc:
            detail, _, fix = str(exc).rpartition(": ")
            yield Finding(name, FAILED, detail or fix, fix if detail else "see above")
        except mysql.connector.Error as exc:
            yield Finding(name, FAILED, f"MySQL did not answer: {exc}", "see above")


def _check_libraries(settings: Settings) -> Iterator[Finding]:
    check_libraries()
    yield Finding("libraries", OK, "the installed versions are the tested ones")


def _check_disk(settings: Settings) -> Iterator[Finding]:
    folder = Path(settings.data_dir).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    result = FAILED if free < FAILURE_FREE_BYTES else WARNING if free < WARNING_FREE_BYTES else OK
    fix = "" if result == OK else "free disk space, or set LATELY_DATA_DIR to a larger disk"
    yield Finding("disk", result, f"{free / 2**30:.1f} GiB are free for {settings.data_dir}", fix)
    if not os.access(existing, os.W_OK):
        yield Finding("data folder", FAILED, f"{existing} is not writable", "set LATELY_DATA_DIR, or its permissions")


def _check_kafka(settings: Settings) -> Iterator[Finding]:
    asyncio.run(identity.require_identity(settings))
    for other in asyncio.run(generation.read_neighbor_generations(settings)):
        detail = f"generation {other.generation} of the topics, with {other.partitions} partitions, exists too"
        fix = "cleanup" if other.generation < settings.generation else f"partitions {other.partitions}` or `--abandon"
        yield Finding("rescale", WARNING, detail, f"`lately rescale --{fix}`")
    missing = asyncio.run(missing_topics(settings))
    if missing:
        detail = f"Kafka answers ({settings.kafka_security}); {len(missing)} topics are missing: {', '.join(missing)}"
        yield Finding("kafka", WARNING, detail, "start a worker or `lately source setup`: they create the topics")
    else:
        detail = f"Kafka answers ({settings.kafka_security}), and all topics have the right configuration"
        yield Finding("kafka", OK, detail)
    if settings.replication == 1:
        yield Finding(
            "replication", WARNING, "the disk of one broker contains the only copy of each topic",
            "LATELY_REPLICATION=3 on a cluster, before the topics are created",
        )  # fmt: skip


def _check_events(settings: Settings) -> Iterator[Finding]:
    """Check that `orders` still has its first event."""
    deleted = {number: offset for number, offset in asyncio.run(_first_offsets(settings)).items() if offset}
    if not deleted:
        yield Finding("events", OK, "orders contains all events since the first one")
        return
    places = ", ".join(f"offset {offset} of partition {number}" for number, offset in deleted.items())
    yield Finding(
        "events", WARNING, f"orders has lost its beginning: the events before {places} are deleted",
        "`lately source snapshot --all` publishes all rows again; `lately verify` compares the tables with MySQL",
    )  # fmt: skip


async def _first_offsets(settings: Settings) -> dict[int, int]:
    async with open_order_log(settings) as order_log:
        return await order_log.first_offsets()


def _check_mysql(settings: Settings) -> Iterator[Finding]:
    yield from check_source(settings)


def _check_clocks(settings: Settings) -> Iterator[Finding]:
    with closing(connect(settings)) as connection:
        skew_s = (read_server_time(connection) - time.time_ns() // 1000) / 1e6
    direction = "ahead of" if skew_s > 0 else "behind"
    detail = f"MySQL's clock is {abs(skew_s):.3f} s {direction} this machine's"
    if abs(skew_s) < MAX_SKEW_S:
        yield Finding("clocks", OK, detail)
    else:
        yield Finding("clocks", WARNING, detail, "synchronize both with NTP")


def _check_source(settings: Settings) -> Iterator[Finding]:
    states = asyncio.run(state_topic.read(settings))
    yield from _check_leader(states.status)
    snapshot = states.snapshot
    if snapshot is not None and not snapshot.is_done:
        detail = f"it stopped after row {snapshot.rows}"
        yield Finding("snapshot", WARNING, detail, "`lately source snapshot` continues it")
    verified = states.verified
    if verified is None or verified.clean_at is None:
        yield Finding("verified", WARNING, "the tables were never compared with MySQL", "`lately verify`")
    elif sum(verified.differences.values()):
        yield Finding(
            "verified", FAILED, f"{sum(verified.differences.values())} purchases differ from MySQL",
            "`lately verify` lists them, `lately verify --repair` repairs them",
        )  # fmt: skip
    else:
        yield Finding("verified", OK, f"the tables were equal to MySQL at {rfc3339(verified.clean_at)}")


def _check_leader(status: source_state.LeaderStatus | None) -> Iterator[Finding]:
    start = "start `lately source`"
    if status is None:
        yield Finding("source", FAILED, "no source has ever run", f"`lately source setup`, then {start}")
        return
    silent_s = time.time() - status.written_at / 1e6
    if silent_s > source_state.STATUS_TIMEOUT_S:
        yield Finding("source", FAILED, f"its last status is {silent_s:.0f} s old", start)
    else:
        detail = f"{status.leader} publishes; the oldest pending change is {status.oldest_pending_s:.1f} s old"
        yield Finding("source", OK, detail)
    for problem in status.problems:
        cause, _, fix = problem.message.rpartition(": ")
        yield Finding(f"source {problem.kind}", FAILED if problem.message in status.reasons else WARNING, cause, fix)
    if status.guarantee != source_state.PROVEN:
        messages = {problem.message for problem in status.problems}
        other_reasons = [reason for reason in status.reasons if reason not in messages]
        detail = f"{status.guarantee}: {'; '.join(other_reasons) or 'see the problems of the source'}"
        yield Finding("guarantee", WARNING, detail, "see the reasons")


def _check_worker(settings: Settings) -> Iterator[Finding]:
    url = settings.worker_url
    try:
        status, body = asyncio.run(_get(f"{url}/readyz"))
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
        detail = f"no worker answers at {url}"
        yield Finding("worker", FAILED, detail, "`lately worker -l info`, or set LATELY_WEB_PORT")
        return
    if status == 200:
        yield Finding("worker", OK, f"{url} is ready")
    else:
        detail = f"{url} is not ready: {body[:200]}"
        yield Finding("worker", WARNING, detail, f"{url}/readyz?verbose shows its progress")


async def _get(url: str) -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=READY_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as client, client.get(url) as response:
        return response.status, await response.text()


def _check_dead_letters(settings: Settings) -> Iterator[Finding]:
    letters = asyncio.run(dead_letter_topic.find_letters(settings, lambda letter: True))
    if letters:
        yield Finding("dead letters", WARNING, f"{len(letters)} are open", "`lately dlq list`, then retry or drop them")
    else:
        yield Finding("dead letters", OK, "none are open")
