"""Workers of one app in this process, which share the partitions of all tables between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.settings import Settings
from domain.partitioning import partition_of
from tables.product_sales import SalesCopy
from tests.kit.event_shop import EventShop
from tests.kit.ownership import FixedOwnership
from tests.kit.web import WebServer, serve


class Cluster:
    """The workers; worker n owns the partitions n, n + count, n + 2 * count, …"""

    def __init__(self, settings: Settings, workers: Sequence[WebServer]) -> None:
        self.settings, self.workers = settings, workers

    def partition(self, key: str) -> int:
        return partition_of(key.encode(), self.settings.partitions)

    def owner(self, key: str) -> WebServer:
        """The worker that owns the partition of a user or a product."""
        return self.workers[self.partition(key) % len(self.workers)]

    def partitions(self, worker: WebServer) -> list[int]:
        """The partitions that a worker owns."""
        first = self.workers.index(worker)
        return [*range(self.settings.partitions)][first :: len(self.workers)]

    def replace(self, away: WebServer, address: str | None) -> None:
        """Let the others take `address` for the owner of a worker's partitions."""
        for worker in self.workers:
            if worker is not away:
                worker.ownership.others = {
                    **worker.ownership.others,
                    **dict.fromkeys(self.partitions(away), address),
                }


@contextmanager
def serve_cluster(
    folder: Path,
    settings: Settings,
    count: int,
    fill: Callable[[EventShop], None],
    standbys: Mapping[int, Sequence[int]] | None = None,
) -> Iterator[Cluster]:
    """Running workers after `fill`; each has only its own partitions, and those of the workers in `standbys`.

    `standbys` maps the number of a worker to the numbers of the workers whose partitions it has a copy of.
    """
    copies = standbys or {}
    sales = SalesCopy(settings.partitions)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(serve(folder / f"worker-{number}", settings, FixedOwnership(), sales))
            for number in range(count)
        ]
        cluster = Cluster(settings, workers)
        for number, worker in enumerate(workers):
            fill(EventShop(worker))
            worker.worker_state.others = [other.address for other in workers if other is not worker]
            owners = {other: workers[other % count] for other in range(settings.partitions)}
            worker.ownership.others = {
                partition: owner.address for partition, owner in owners.items() if owner is not worker
            }
            copied = {partition for other in copies.get(number, ()) for partition in cluster.partitions(workers[other])}
            worker.ownership.caught_up = frozenset(copied)
            worker.close_partitions(set(worker.ownership.others) - copied)
        for number, worker in enumerate(workers):
            worker.ownership.standbys = {
                partition: [
                    workers[holder].address
                    for holder, held in copies.items()
                    if holder != number and partition % count in held
                ]
                for partition in range(settings.partitions)
            }
        yield cluster
