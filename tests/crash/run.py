"""One run: an app with a name, changelogs and folders of its own, over the orders that all runs share."""

from __future__ import annotations

import itertools
import shutil
import signal
import uuid
from pathlib import Path

from confluent_kafka.admin import AdminClient

from tests.crash import log
from tests.crash.orders import PARTITIONS
from tests.crash.truth import Truth
from tests.kit.commands import FAULTY_WORKER
from tests.kit.eventually import eventually
from tests.kit.stack import Worker

TABLES = ("by_user", "product_partials", "by_product")
#: A slow worker takes so many steps for all orders, and some ten seconds; so there is a middle to be hit.
STEPS, PAUSE_S = 480, 0.02
SECONDS_TO_CATCH_UP = 120
SECONDS_TO_STOP = 30


class Ended(Exception):
    """A worker is not there any more, and nobody asked it to go."""


class Run:
    """The workers of one run; at its end they are gone, and so are its topics."""

    def __init__(self, kafka: str, prefix: str, truth: Truth, folder: Path, **env: str) -> None:
        self.kafka, self.orders, self.truth, self.folder = kafka, f"{prefix}orders", truth, folder
        self.name = f"c{uuid.uuid4().hex[:10]}"
        self.workers: dict[str, Worker] = {}
        self.env = {
            "LATELY_ID": self.name,
            "LATELY_KAFKA": kafka,
            "LATELY_TOPIC_PREFIX": prefix,
            "LATELY_PARTITIONS": str(PARTITIONS),
            "LATELY_SESSION_TIMEOUT_S": "6",
            **env,
        }

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.kill()
        admin = AdminClient({"bootstrap.servers": self.kafka})
        mine = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(f"{self.name}-")]
        for deleted in admin.delete_topics(mine).values() if mine else ():
            deleted.result()

    @property
    def events(self) -> int:
        """How many events there are to read."""
        return sum(self.truth.ends)

    def changelog(self, table: str) -> str:
        return f"{self.name}-{table}-changelog"

    def start(self, name: str, **faults: str) -> Worker:
        """Start a worker, with a folder of its own that outlives it; `faults` are for tests.kit.faulty_worker."""
        worker = self.workers[name] = Worker(self, name, FAULTY_WORKER if faults else None, **faults)
        return worker.start()

    def start_slow(self, name: str, **faults: str) -> Worker:
        """The same for a worker that takes its time."""
        return self.start(name, CRASH_PAUSE_S=str(PAUSE_S), CRASH_CHUNK=str(self.events // STEPS), **faults)

    def wipe(self, name: str) -> None:
        """Lose the disk of a worker that is gone."""
        assert not self.workers[name].process.is_running
        shutil.rmtree(self.workers[name].folder, ignore_errors=True)

    def running(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.process.is_running]

    def wait_for_events(self, worker: Worker, events: int) -> None:
        """Return when the worker has read so many since its start, or there is nothing left to read."""
        tick = itertools.count(1)

        def reached() -> bool:
            if not worker.process.is_running:
                raise Ended(worker.process.tail())
            return worker.events() >= events or (next(tick) % 20 == 0 and self.is_through())

        eventually(reached, SECONDS_TO_CATCH_UP)

    def is_through(self) -> bool:
        """Whether everything is read and committed: the orders, and what follows from them."""
        partials = f"{self.name}-product-partials"
        return (
            log.committed(self.kafka, self.name, self.orders, PARTITIONS) == self.truth.ends
            and log.committed(self.kafka, self.name, partials, PARTITIONS) == log.ends(self.kafka, partials, PARTITIONS)
        )  # fmt: skip

    def wait_until_through(self) -> None:
        """Return when all is read and committed and every worker that runs may answer."""

        def through() -> None:
            for worker in self.workers.values():
                if not worker.process.is_running:
                    raise Ended(worker.process.tail())
                ready = worker.get("/readyz?verbose")
                assert ready.status == 200, worker.process.name
                # Who makes copies to take over soon asks for another rebalance.
                assert not any(one["warming"] for one in ready.json["partitions"].values()), worker.process.name
            done = log.committed(self.kafka, self.name, self.orders, PARTITIONS)
            assert self.is_through(), f"committed {done} of {self.truth.ends}"

        eventually(through, SECONDS_TO_CATCH_UP)

    def stop(self, *workers: Worker) -> None:
        """Ask workers to end (SIGTERM), all at once, and see that they do so in good order."""
        children = [worker.process.child for worker in workers]
        for child in children:
            child.send_signal(signal.SIGTERM)
        codes = [child.wait(SECONDS_TO_STOP) for child in children]
        assert codes == [0] * len(codes), "\n".join(worker.process.tail() for worker in workers)
        for worker in workers:
            worker.kill()  # forgets the pid
