"""A web application in this process, on a real socket, over tables in a folder; without Kafka."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import uvloop
from aiohttp import ClientSession
from aiohttp.web import Application, TCPSite

from app.services.dead_letter_counts import DeadLetterCounts
from app.services.progress import PartitionProgress
from app.services.source_status import SourceStatus
from app.services.stall_detector import Stall
from app.settings import Settings
from app.topics import Topics
from app.worker_state import TablePartitions
from chunks import RestoreProgress
from domain.events import Event
from local.process import find_free_port
from tables.by_product import ByProductReader
from tables.by_user import ByUserReader
from tables.product_sales import SalesCopy
from tables.similar import SimilarReader
from tests.kit.http_client import HttpClient
from tests.kit.makers import wire
from tests.kit.ownership import FixedOwnership
from tests.kit.tables import FilledTables
from web.application import VIEWS
from web.context import WebContext
from web.http.dispatch import mount
from web.http.server import create_runner, prepare

T = TypeVar("T")

MAX_BODY_BYTES = 64 * 1024


class FixedWorkerState:
    """Implements web.worker.WorkerState for a worker that runs alone and has recovered its tables."""

    def __init__(self, address: str, tables: FilledTables) -> None:
        self._address, self._tables = address, tables
        #: The addresses of the other workers with the same agents.
        self.others: Sequence[str] = ()

    def address(self) -> str:
        """Return the URL of this worker."""
        return self._address

    def is_recovering(self) -> bool:
        """Return False."""
        return False

    def recovery_progress(self) -> RestoreProgress:
        """Return the progress of a restore of empty changelogs."""
        return RestoreProgress()

    def partitions(self) -> dict[str, TablePartitions]:
        """Return all partitions of each table as active."""
        return {name: TablePartitions([*reader.stores], [], []) for name, reader in self._tables.readers.items()}

    def standby_positions(self) -> list[tuple[str, int, int]]:
        """Return no standby."""
        return []

    def incomplete_partitions(self) -> dict[str, int]:
        """Return for each table that no partition is incomplete."""
        return dict.fromkeys(self._tables.readers, 0)

    def partition_progress(self) -> list[PartitionProgress]:
        """Return that every record of each source partition is applied."""
        positions = {
            (reader.source_topic, number): reader.position(number) or 0
            for reader in self._tables.readers.values()
            for number in reader.stores
        }
        return [PartitionProgress(topic, number, end, end, 0.0) for (topic, number), end in sorted(positions.items())]

    def requests_per_s(self) -> float | None:
        """Return None, as long after the start of a worker."""
        return None

    def stalls(self) -> Sequence[Stall]:
        """Return no stall."""
        return []

    def workers(self) -> Mapping[str, list[int]]:
        """Return this worker, with all partitions, and the others."""
        return {self._address: self.partitions()["by_user"].active, **{address: [] for address in self.others}}

    async def wait(self, awaitable: Awaitable[T]) -> T | None:
        """Return the result of `awaitable`: the worker does not stop before."""
        return await awaitable


async def _cancel_tasks() -> None:
    """Cancel the tasks of closed connections, and wait for their end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class WebServer(HttpClient):
    """Serves the views in a thread of its own, with real stores, readers and connections."""

    def __init__(self, folder: Path, settings: Settings, ownership: FixedOwnership, sales: SalesCopy) -> None:
        super().__init__(find_free_port())
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"web server {self.port}", daemon=True)
        self._thread.start()
        self.ownership = ownership
        self._folder, self._settings, self._sales = folder, settings, sales
        self._thawed = threading.Event()
        #: None: as the tables.
        self.is_sales_complete: bool | None = None
        #: None: unknown.
        self.lists_as_of: int | None = None
        self.log = _ErrorLog()
        self.run(self._start())

    @property
    def address(self) -> str:
        """The URL of this worker."""
        return f"http://127.0.0.1:{self.port}"

    def run(self, work: Coroutine[None, None, T]) -> T:
        """Run `work` in the server's event loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def publish(self, *events: Event) -> None:
        """Apply events of `orders`, and everything that follows from them, to the tables."""

        async def apply() -> None:
            self.tables.publish(wire(event) for event in events)

        self.run(apply())

    def close_partitions(self, partitions: Iterable[int]) -> None:
        """Close partitions of all tables, as a worker does that loses them."""

        async def close() -> None:
            for reader in self.tables.readers.values():
                for partition in partitions:
                    reader.stores.pop(partition).close()

        self.run(close())

    def stop_listening(self) -> None:
        """Close the port and all connections."""
        self.run(self._runner.cleanup())

    def freeze(self) -> None:
        """Block the event loop until `thaw`: connections are accepted, and nothing is answered."""
        self._thawed.clear()
        self._loop.call_soon_threadsafe(self._thawed.wait)

    def thaw(self) -> None:
        """End `freeze`."""
        self._thawed.set()

    def stop(self) -> None:
        """Stop the server and close the tables."""
        self.run(self._stop())
        self.run(_cancel_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        settings, topics = self._settings, Topics(self._settings)
        self.tables = FilledTables(self._folder, settings, self._sales)
        self._client = ClientSession()
        readers, source_status = self.tables.readers, SourceStatus(settings, topics)
        self.worker_state = FixedWorkerState(self.address, self.tables)
        context = WebContext(
            settings=settings,
            topics=topics,
            ownership=self.ownership,
            worker=self.worker_state,
            by_user=ByUserReader(readers["by_user"], source_status),
            by_product=ByProductReader(readers["by_product"]),
            similar=SimilarReader(readers["similar"]),
            sales=self.tables.sales,
            is_sales_complete=self._are_sales_complete,
            list_freshness=lambda: source_status.freshness(0, 0)._replace(as_of=self.lists_as_of),
            tables=readers,
            source_status=source_status,
            dead_letter_counts=DeadLetterCounts(settings, topics),
            http_client=lambda: self._client,
        )
        application = Application(client_max_size=MAX_BODY_BYTES)
        prepare(application)
        mount(application, context, VIEWS)
        self._runner = create_runner(application, settings)
        logging.getLogger().addHandler(self.log)
        await self._runner.setup()
        await TCPSite(self._runner, "127.0.0.1", self.port).start()

    def _are_sales_complete(self) -> bool:
        return self.ownership.is_worker_ready if self.is_sales_complete is None else self.is_sales_complete

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._client.close()
        self.tables.close()
        logging.getLogger().removeHandler(self.log)


class _ErrorLog(logging.Handler):
    """Collects the log records with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.tracebacks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.tracebacks.append(logging.Formatter().format(record))


@contextmanager
def serve(
    folder: Path,
    settings: Settings | None = None,
    ownership: FixedOwnership | None = None,
    sales: SalesCopy | None = None,
) -> Iterator[WebServer]:
    """A running web server; by default with the default settings, and the owner of all partitions.

    Servers that are workers of one app share `sales`, as if each had read the same changelog.
    """
    settings = settings or Settings()
    server = WebServer(folder, settings, ownership or FixedOwnership(), sales or SalesCopy(settings.partitions))
    try:
        yield server
    finally:
        server.stop()
