"""A shop on a broker of its own, with a source and two workers, and wires between them that can be cut."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from local.artifacts import Artifacts
from local.kafka import Kafka, start_kafka
from local.process import find_free_port
from tests.faults.shop import Shop
from tests.faults.wire import Wire
from tests.kit.eventually import eventually
from tests.kit.stack import Servers, Stack, Worker

SESSION_S = 4
SECONDS_TO_STOP = 10
SECONDS_TO_CATCH_UP = 60


@dataclass(frozen=True)
class End:
    """A worker that has ended by itself, with its exit code and its last words."""

    name: str
    code: int
    words: str


class Rig:
    """While it is entered, a shop on a broker of its own, with a source and the workers `one` and `two`.

    `one` reaches Kafka over `kafka_wire`, other workers reach `two` over `web_wire`, and source and workers reach the
    shop's database over `mysql_wire`. All else goes without a wire.
    """

    def __init__(
        self, artifacts: Artifacts, database: dict, folder: Path, seed: int = 1, per_s: float = 60,
        keep: int | None = None,
    ) -> None:  # fmt: skip
        self._artifacts, self._database, self._folder = artifacts, database, folder
        self._seed, self._per_s, self._keep = seed, per_s, keep
        self._exits = ExitStack()
        self.workers: dict[str, Worker] = {}

    def __enter__(self) -> Rig:
        with self._exits:
            self._start()
            self._exits = self._exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _start(self) -> None:
        self.broker, self.kafka_wire = wired_broker(self._artifacts, self._folder / "broker", self._exits)
        servers = Servers(self.broker.address, **self._database)
        self.stack = self._exits.enter_context(Stack(servers, self._folder, partitions=4))
        self.mysql_wire = self._exits.enter_context(Wire(servers.port))
        self.stack.env["LATELY_SESSION_TIMEOUT_S"] = str(SESSION_S)
        self.stack.env["LATELY_MYSQL_PORT"] = str(self.mysql_wire.port)
        del self.stack.env["LATELY_FALLBACK_PER_S"]
        self.shop = Shop(self.stack, self._seed, self._per_s, self._keep)
        self.stack.create_orders()
        self.stack.setup()
        self.source = self.stack.source()
        two = self.stack.worker("two")
        self.web_wire = self._exits.enter_context(Wire(two.port))
        two.env["NODE_CANONICAL_URL"] = f"http://127.0.0.1:{self.web_wire.port}"
        one = self.stack.worker("one", LATELY_KAFKA=f"127.0.0.1:{self.kafka_wire.port}")
        self.workers = {"one": one.start(), "two": two.start()}
        for worker in self.workers.values():
            worker.wait_ready()
        self.wait_whole()

    def wait_whole(self) -> list[End]:
        """Return when both workers may answer and each has partitions of its own; what had to be started for that."""
        ends = []

        def whole() -> None:
            ends.extend(self.start_again())
            for name, worker in self.workers.items():
                assert self.owned(name), f"{name} has no partitions:\n{worker.process.tail(5)}"

        eventually(whole, within=SECONDS_TO_CATCH_UP)
        return ends

    def mend(self) -> None:
        """Mend all wires."""
        for wire in (self.kafka_wire, self.web_wire, self.mysql_wire):
            wire.mend()

    def owned(self, name: str) -> list[int]:
        """The partitions of by_user that a worker owns; none while it does not answer."""
        answer = self.workers[name].get("/readyz?verbose")
        return answer.json["partitions"]["by_user"]["active"] if answer.status == 200 else []

    def ended(self) -> list[End]:
        """The workers that have ended by themselves."""
        return [
            End(name, worker.process.child.returncode, worker.process.tail(4_000))
            for name, worker in self.workers.items()
            if worker.process.child is not None and not worker.process.is_running
        ]

    def start_again(self) -> list[End]:
        """Start whatever has ended, as systemd or Kubernetes would; what there was to start."""
        ends = self.ended()
        for end in ends:
            worker = self.workers[end.name]
            worker.kill()  # forgets the pid
            worker.start()
        return ends

    def settle(self) -> list[End]:
        """Once the fault is over and nobody buys any more: all is read, and both workers say exactly what SQL says."""
        ends = []

        def exact() -> None:
            ends.extend(self.start_again())
            assert self.stack.outbox_is_empty()
            self.shop.assert_exact(*self.workers.values())

        eventually(exact, within=SECONDS_TO_CATCH_UP)
        ends.extend(self.wait_whole())
        return ends

    def stop(self, *names: str, within: float = SECONDS_TO_STOP) -> list[int]:
        """Tell workers to end (SIGTERM), all at once; their exit codes. Raises TimeoutExpired after so many seconds."""
        children = [self.workers[name].process.child for name in names]
        for child in children:
            child.send_signal(signal.SIGTERM)
        codes = [child.wait(within) for child in children]
        for name in names:
            self.workers[name].kill()  # forgets the pid
        return codes


def wired_broker(artifacts: Artifacts, folder: Path, exits: ExitStack) -> tuple[Kafka, Wire]:
    """A broker, and a wire to it: who comes over the wire is told to come back over it."""
    port = find_free_port()
    wire = exits.enter_context(Wire(port))
    more = (
        f"listeners=BROKER://127.0.0.1:{{port}},WIRED://127.0.0.1:{port},CONTROLLER://127.0.0.1:{{controller}}",
        f"advertised.listeners=BROKER://127.0.0.1:{{port}},WIRED://127.0.0.1:{wire.port}",
        "listener.security.protocol.map=BROKER:PLAINTEXT,WIRED:PLAINTEXT,CONTROLLER:PLAINTEXT",
    )
    return exits.enter_context(start_kafka(artifacts, folder, extra_settings="\n".join(more))), wire
