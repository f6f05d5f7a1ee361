"""Random faults, one after the other; after each all is whole again before the next one."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable

from local.mariadb import MariaDB
from tests.faults.fault_actions import damage, frozen, last_for
from tests.faults.fault_setup import SESSION_S, Rig
from tests.kit.stack import Worker

PAUSE_S = (8.0, 20.0)
TABLES = ("by_user", "by_product", "baskets", "similar")


class Breaking:
    """Breaks servers, wires and workers of a rig, whose database is `mariadb`; `say` is told of each fault."""

    def __init__(self, rig: Rig, mariadb: MariaDB, dice: random.Random, say: Callable[[str], None]) -> None:
        self.rig, self.mariadb, self.dice, self.say = rig, mariadb, dice, say
        #: Seconds since the start, and the fault.
        self.done: list[tuple[float, str]] = []
        #: From when to when not everything was whole.
        self.spans: list[tuple[float, float]] = []
        #: How workers ended by themselves.
        self.ends: Counter[str] = Counter()
        self.faults: dict[str, Callable[[], None]] = {
            "broker frozen": self._broker_frozen,
            "broker stopped and started": lambda: self._broker_restarted(crash=False),
            "broker killed and started": lambda: self._broker_restarted(crash=True),
            "network to Kafka cut": lambda: self._wire("kafka_wire", "cut"),
            "network to Kafka silent": lambda: self._wire("kafka_wire", "silence"),
            "network between workers cut": lambda: self._wire("web_wire", "cut"),
            "network between workers silent": lambda: self._wire("web_wire", "silence"),
            "network to MySQL cut": lambda: self._wire("mysql_wire", "cut"),
            "network to MySQL silent": lambda: self._wire("mysql_wire", "silence"),
            "MySQL killed and started": self._mysql_killed,
            "source killed": self._source_killed,
            "worker killed": self._worker_killed,
            "worker killed, its disk lost": lambda: self._worker_killed(lost=True),
            "worker frozen": self._worker_frozen,
            "worker told to stop": self._worker_stopped,
            "files of a table damaged": self._damaged,
        }

    def run(self, until: float, start: float) -> None:
        """Break something, wait, look that everything is back, and again."""
        names = sorted(self.faults)
        while time.monotonic() < until:
            last_for(min(self.dice.uniform(*PAUSE_S), max(0.0, until - time.monotonic())))
            if time.monotonic() >= until:
                return
            self.whole()  # a worker may have ended in peace, too: that is told, and no fault meets a dead one
            name = self.dice.choice(names)
            self.done.append((time.monotonic() - start, name))
            self.say(f"  {self.done[-1][0]:5.0f} s  {name}")
            self.faults[name]()
            self.whole()
            self.spans.append((self.done[-1][0], time.monotonic() - start))

    def whole(self) -> None:
        """Start again what has ended, as systemd would, and wait for it."""
        if not self.rig.source.is_running:
            self.rig.source.kill()  # forgets the pid
            self.rig.source.start()
        for end in self.rig.wait_whole():
            said = end.words.splitlines()[-1]
            self.ends[f"{end.code}: {_kind(said)}"] += 1
            self.say(f"           worker {end.name} ended with {end.code}: {said[:160]}")

    def _worker(self) -> Worker:
        return self.rig.workers[self.dice.choice(sorted(self.rig.workers))]

    def _broker_frozen(self) -> None:
        with frozen(self.rig.broker.process.pid):
            last_for(self.dice.uniform(1, 12))

    def _broker_restarted(self, crash: bool) -> None:
        self.rig.broker.kill() if crash else self.rig.broker.stop()
        last_for(self.dice.uniform(0, 4))
        self.rig.broker.start()

    def _wire(self, name: str, how: str) -> None:
        wire = getattr(self.rig, name)
        getattr(wire, how)()
        last_for(self.dice.uniform(1, 2 * SESSION_S))
        wire.mend()

    def _mysql_killed(self) -> None:
        self.mariadb.kill()
        last_for(self.dice.uniform(0, 4))
        self.mariadb.start()

    def _source_killed(self) -> None:
        self.rig.source.kill()

    def _worker_killed(self, lost: bool = False) -> None:
        worker = self._worker()
        worker.kill()
        if lost:
            shutil.rmtree(worker.folder)
        worker.start()

    def _worker_frozen(self) -> None:
        with frozen(self._worker().process.pid):
            last_for(self.dice.uniform(1, 2 * SESSION_S))

    def _worker_stopped(self) -> None:
        name = self.dice.choice(sorted(self.rig.workers))
        assert self.rig.stop(name) == [0], self.rig.workers[name].process.tail()
        self.rig.workers[name].start()

    def _damaged(self) -> None:
        name = self.dice.choice(sorted(self.rig.workers))
        assert self.rig.stop(name) == [0], self.rig.workers[name].process.tail()
        damage(self.rig.workers[name].folder, self.dice.choice(TABLES))
        self.rig.workers[name].start()


def _kind(said: str) -> str:
    """The last words of a worker without its time, its folder and all numbers: those of one kind are the same."""
    without_time = re.sub(r"^(\[[^]]*\] )*", "", said.strip())
    without_folder = re.sub(r"/\S*/", "", without_time)
    return re.sub(r"\b(t[0-9a-f]{10}-)|\d+", lambda found: "" if found[1] else "N", without_folder)[:100]
