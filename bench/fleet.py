"""The workers of a shop that come and go, and the load on them: orders, and requests.

The load on the workers is the same for all parts of the benchmark that use it.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import Generic, NamedTuple, Protocol, TypeVar

import aiohttp

from bench.data import user_id
from bench.sides import FOLDER, ROOT
from bench.source import INSERT, BenchShop, has_status_200
from local.process import LocalProcess, find_free_port, wait_ready

USERS, PARTITIONS = 5_000, 4
#: Orders in a transaction.
BATCH = 20
SECONDS_TO_START = 90
#: The longest time that a request may take before the client counts a failure.
REQUEST_TIMEOUT_S = 10


class OrderStream(NamedTuple):
    """Orders that a shop commits: how many in a second, of how many products, and their times."""

    orders_per_s: int
    products: int
    first_at: datetime
    step: timedelta


class HttpResponse(NamedTuple):
    """A response: time of the request (s), duration, status (0: none), and the decoded body."""

    time: float
    took_ms: float
    status: int
    body: dict


class Sample(Protocol):
    """A response in the results: time of the request (s), and its status."""

    @property
    def time(self) -> float: ...
    @property
    def status(self) -> int: ...


SampleT = TypeVar("SampleT", bound=Sample)
#: Sends a request of random contents to the first port that accepts a connection.
Send = Callable[[aiohttp.ClientSession, random.Random, "list[int]"], Awaitable[SampleT]]


class Fleet:
    """The workers of a shop, and the ports that a load balancer would use."""

    def __init__(self, shop: BenchShop) -> None:
        self._shop = shop
        self.workers: dict[str, LocalProcess] = {}
        self.ports: dict[str, int] = {}
        #: The processes of all workers, also of those that have ended.
        self.pids: set[int] = set()
        #: The times at which a worker was killed, or began to stop or to start.
        self.changes: list[float] = []

    def start(self, name: str) -> None:
        """Start a worker, and add its port when it is ready."""
        port = self.ports.get(name) or find_free_port()
        folder = FOLDER / "run" / self._shop.name / name
        env = {
            **self._shop.env, "LATELY_WEB_PORT": str(port), "LATELY_DATA_DIR": str(folder / "state"),
            "LATELY_STANDBY_REPLICAS": "1", "LATELY_PARTITIONS": str(PARTITIONS),
        }  # fmt: skip
        command = [sys.executable, "-m", "app", "worker", "-l", "info"]
        worker = self.workers[name] = LocalProcess(name, command, folder, env=env, cwd=ROOT)
        self.changes.append(time.monotonic())
        worker.start()
        self.pids.add(worker.pid)
        wait_ready(worker, lambda: has_status_200(port, "/readyz"), SECONDS_TO_START, "200 of /readyz")
        self.ports[name] = port

    def kill(self, name: str) -> None:
        """Kill a worker with SIGKILL, and remove its port."""
        self.changes.append(time.monotonic())
        self.workers.pop(name).kill()
        del self.ports[name]

    def restart(self, name: str) -> None:
        """Stop a worker with SIGTERM, and start it again."""
        self.changes.append(time.monotonic())
        self.workers.pop(name).stop(40)
        self.start(name)

    def stop(self) -> None:
        """Kill all workers."""
        for worker in self.workers.values():
            worker.kill()


class Reader(Generic[SampleT]):
    """Sends requests at fixed times in a thread, and stores a sample of each response."""

    def __init__(self, fleet: Fleet, requests_per_s: float, send: Send[SampleT]) -> None:
        self._fleet, self._requests_per_s, self._send = fleet, requests_per_s, send
        self._stopping = False
        self.samples: list[SampleT] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._read()))

    def __enter__(self) -> Reader[SampleT]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    async def _read(self) -> None:
        dice = random.Random(7)  # noqa: S311 - a benchmark needs repeatable numbers
        tasks: set[asyncio.Task] = set()
        # By default the requests above the first hundred wait in the client, and fail there.
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            began, number = time.monotonic(), 0
            while not self._stopping:
                ports = list(self._fleet.ports.values())
                dice.shuffle(ports)
                task = asyncio.create_task(self._store(self._send(session, dice, ports)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
                await asyncio.sleep(max(0.0, began + number / self._requests_per_s - time.monotonic()))
            await asyncio.gather(*tasks)

    async def _store(self, sending: Awaitable[SampleT]) -> None:
        self.samples.append(await sending)


async def get_from_any(session: aiohttp.ClientSession, ports: Iterable[int], path: str) -> HttpResponse:
    """Request a path from the first port that accepts the connection, as a load balancer does."""
    began, status, body = time.monotonic(), 0, {}
    for port in ports:
        try:
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                status, body = answer.status, await answer.json(content_type=None)
                break
        except (aiohttp.ClientConnectionError, asyncio.TimeoutError):
            continue
    return HttpResponse(began, (time.monotonic() - began) * 1000, status, body)


class Writer:
    """Commits orders at a steady rate in a thread; `number` is that of the first order."""

    def __init__(self, shop: BenchShop, stream: OrderStream, number: int = 0) -> None:
        self._shop, self._stream, self._number = shop, stream, number
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.committed = 0
        self.spent_s = 0.0

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _write(self) -> None:
        orders_per_s, products, first_at, step = self._stream
        dice, began = random.Random(11 + self._number), time.monotonic()  # noqa: S311
        with closing(self._shop.connect()) as connection, closing(connection.cursor()) as cursor:
            while not self._stopping.wait(max(0.0, began + self.committed / orders_per_s - time.monotonic())):
                first = self._number + self.committed
                cursor.executemany(
                    INSERT,
                    [
                        (f"e-{number}", f"Product {dice.randrange(products)}", user_id(dice.randrange(USERS)), "19.90",
                         (first_at + number * step).isoformat(sep=" "), "card", "phones")
                        for number in range(first, first + BATCH)
                    ],
                )  # fmt: skip
                connection.commit()
                self.committed += BATCH
        self.spent_s = time.monotonic() - began

    def __str__(self) -> str:
        return f"{self.committed:,} orders in {self.spent_s:.0f} s ({self.committed / self.spent_s:,.0f}/s)"


class Steps:
    """The steps of a run: name, begin and end of each; a step lasts at least `pause_s`."""

    def __init__(self, pause_s: float, log: Callable[[str], None]) -> None:
        self._pause_s, self._log = pause_s, log
        self.done: list[tuple[str, float, float]] = []

    @contextmanager
    def step(self, name: str, pause_s: float | None = None) -> Iterator[None]:
        """Run a step, and pause after it."""
        begins = time.monotonic()
        yield
        time.sleep(self._pause_s if pause_s is None else pause_s)
        self.done.append((name, begins, time.monotonic()))
        self._log(name)

    def samples(self, samples: Iterable[SampleT]) -> Iterator[tuple[str, list[SampleT]]]:
        """Yield the name of each step, and the samples of requests that were sent during it."""
        kept = list(samples)
        for name, begins, ends in self.done:
            yield name, [sample for sample in kept if begins <= sample.time < ends]


def longest_failure(samples: Iterable[Sample]) -> float:
    """Return the longest time (s) from a failed response to the next success.

    Without a later success it ends with the last failed response.
    """
    longest, since = 0.0, None
    for sample in sorted(samples, key=lambda sample: sample.time):
        if sample.status == 200:
            longest = max(longest, sample.time - since) if since is not None else longest
            since = None
        elif since is None:
            since = sample.time
        else:
            longest = max(longest, sample.time - since)
    return longest
