"""`lately doctor`: looks at all that Lately needs and touches nothing; each finding has its fix."""

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

from app.control import generation, source_state
from app.kafka import dead_letter_topic
from app.kafka.admin import missing_topics
from app.settings import Settings
from chunks import UnsupportedLibrary, check_libraries
from domain.errors import LatelyError
from domain.values import rfc3339
from source.check import FAILED, OK, WARNING, Finding
from source.check import check_source as check_source
from source.mysql import connect, read_server_time

#: Less free disk than the first is a failure, less than the second a warning.
TOO_LITTLE, LITTLE = 2**30, 5 * 2**30
#: Clocks that differ by more make `lag_ms` and `as_of` wrong.
SKEW_S = 1.0
PATIENCE_S = 5


def check_everything(settings: Settings) -> Iterator[Finding]:
    """All findings, one after the other; what cannot be looked at is one, too."""
    looks: list[Callable[[Settings], Iterator[Finding]]] = [
        _libraries, _disk, _kafka, _mysql, _clocks, _source, _worker, _dead_letters
    ]  # fmt: skip
    for one in looks:
        name = one.__name__.strip("_").replace("_", " ")
        try:
            yield from one(settings)
        except (LatelyError, UnsupportedLibrary) as exc:
            detail, _, fix = str(exc).rpartition(": ")
            yield Finding(name, FAILED, detail or fix, fix if detail else "see above")
        except mysql.connector.Error as exc:
            yield Finding(name, FAILED, f"MySQL did not answer: {exc}", "see above")


def _libraries(settings: Settings) -> Iterator[Finding]:
    check_libraries()
    yield Finding("libraries", OK, "they are the ones that were tested")


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = Path(settings.data_dir).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    result = FAILED if free < TOO_LITTLE else WARNING if free < LITTLE else OK
    fix = "" if result == OK else "make room, or set LATELY_DATA_DIR to a larger disk"
    yield Finding("disk", result, f"{free / 2**30:.1f} GiB are free for {settings.data_dir}", fix)
    if not os.access(there, os.W_OK):
        yield Finding("data folder", FAILED, f"{there} cannot be written to", "set LATELY_DATA_DIR, or its permissions")


def _kafka(settings: Settings) -> Iterator[Finding]:
    asyncio.run(generation.require_startable_generation(settings))
    for one in asyncio.run(generation.read_neighbor_generations(settings)):
        detail = f"generation {one.generation} of the topics, with {one.partitions} partitions, is there, too"
        fix = "cleanup" if one.generation < settings.generation else f"partitions {one.partitions}` or `--abandon"
        yield Finding("rescale", WARNING, detail, f"`lately rescale --{fix}`")
    missing = asyncio.run(missing_topics(settings))
    if missing:
        detail = (
            f"Kafka answers ({settings.kafka_security}); {len(missing)} topics are not there yet: {', '.join(missing)}"
        )
        yield Finding("kafka", WARNING, detail, "start a worker or `lately source setup`: they make them")
    else:
        yield Finding("kafka", OK, f"Kafka answers ({settings.kafka_security}), and all topics are as they must be")
    if settings.replication == 1:
        yield Finding(
            "replication", WARNING, "one broker's disk has the only copy of each topic",
            "LATELY_REPLICATION=3 on a cluster, before the topics are made",
        )  # fmt: skip


def _mysql(settings: Settings) -> Iterator[Finding]:
    yield from check_source(settings)


def _clocks(settings: Settings) -> Iterator[Finding]:
    with closing(connect(settings)) as connection:
        skew = (read_server_time(connection) - time.time_ns() // 1000) / 1e6
    detail = f"MySQL's clock is {abs(skew):.3f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    yield Finding("clocks", *((OK, detail) if abs(skew) < SKEW_S else (WARNING, detail, "let NTP set both")))


def _source(settings: Settings) -> Iterator[Finding]:
    known = asyncio.run(source_state.read(settings))
    said, taken, verified = known.status, known.snapshot, known.verified
    start = "start `lately source`"
    if said is None:
        yield Finding("source", FAILED, "none has ever run", f"`lately source setup`, then {start}")
    else:
        silent_s = time.time() - said.written_at / 1e6
        if silent_s > source_state.STATUS_TIMEOUT_S:
            yield Finding("source", FAILED, f"its last sign is {silent_s:.0f} s old", start)
        else:
            yield Finding("source", OK, f"{said.leader} publishes; {said.oldest_pending_s:.1f} s is the oldest change")
        if said.guarantee != source_state.PROVEN:
            yield Finding("guarantee", WARNING, f"{said.guarantee}: {'; '.join(said.reasons)}", "see the reasons")
    if taken is not None and not taken.is_done:
        yield Finding("snapshot", WARNING, f"it stopped behind row {taken.rows}", "`lately source snapshot` goes on")
    if verified is None or verified.clean_at is None:
        yield Finding("verified", WARNING, "the answers were never compared with MySQL", "`lately verify`")
    elif sum(verified.differences.values()):
        yield Finding("verified", FAILED, f"{sum(verified.differences.values())} purchases differ from MySQL",
                      "`lately verify` names them, `lately verify --repair` mends them")  # fmt: skip
    else:
        yield Finding("verified", OK, f"the answers equal MySQL as of {rfc3339(verified.clean_at)}")


def _worker(settings: Settings) -> Iterator[Finding]:
    url = f"http://{settings.web_host}:{settings.web_port}"
    try:
        status, body = asyncio.run(_get(f"{url}/readyz"))
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
        yield Finding("worker", FAILED, f"nobody answers at {url}", "`lately worker -l info`, or set LATELY_WEB_PORT")
        return
    if status == 200:
        yield Finding("worker", OK, f"{url} is ready")
    else:
        yield Finding(
            "worker", WARNING, f"{url} is not ready: {body[:200]}", f"{url}/readyz?verbose says how far it is"
        )


async def _get(url: str) -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(timeout=timeout) as client, client.get(url) as answer:
        return answer.status, await answer.text()


def _dead_letters(settings: Settings) -> Iterator[Finding]:
    found = asyncio.run(dead_letter_topic.find_letters(settings, lambda letter: True))
    if found:
        yield Finding("dead letters", WARNING, f"{len(found)} wait", "`lately dlq list`, then retry or drop them")
    else:
        yield Finding("dead letters", OK, "none wait")
