"""Computes which worker gets which partition, from the state of each worker (pure functions).

The algorithm follows Kafka Streams' assignor (KIP-441): a worker that would have to restore a
partition does not become its owner while another worker can process it at once. The new owner first
keeps a standby, and takes over in a second rebalance when the standby is warm.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

#: The name of this assignment protocol in a group; all members of a group must support it.
PROTOCOL = "chunks"
#: Maximum lag of a warm partition: so many changelog records are read in well under a second
#: (bench/results.md).
WARM_RECORDS = 50_000


@dataclass(frozen=True)
class ClientState:
    """State of a worker before a rebalance: the partitions that it processed, and its standbys.

    `lags`: partition -> changelog records that it lacks compared with the furthest worker; a
    missing partition is not on its disk. `warmed`: standbys that it was assigned to warm up, and
    that are as good as the owner's store.
    """

    active: Collection[int] = ()
    standby: Collection[int] = ()
    lags: Mapping[int, int] = field(default_factory=dict)
    warmed: Collection[int] = ()

    def lag(self, partition: int) -> float:
        """Return the number of records to read before the worker can process the partition."""
        return 0 if partition in self.warmed else self.lags.get(partition, math.inf)

    def is_warm(self, partition: int) -> bool:
        """Return whether the worker could process the partition at once."""
        return self.lag(partition) <= WARM_RECORDS


@dataclass
class TargetAssignment:
    """The partitions assigned to a worker.

    `warmup` is a subset of `standby`: once these partitions are warm, the worker requests another
    rebalance.
    """

    active: set[int] = field(default_factory=set)
    standby: set[int] = field(default_factory=set)
    warmup: set[int] = field(default_factory=set)

    @property
    def load(self) -> int:
        """The number of partitions on the worker's disk."""
        return len(self.active) + len(self.standby)


def assign(partitions: int, states: Mapping[str, ClientState], replicas: int) -> dict[str, TargetAssignment]:
    """Return worker -> assignment. Each partition is active once and has `replicas` standbys.

    With too few workers there are fewer standbys.

    The numbers of active partitions differ by one at most, with the fewest moves. A partition that
    its new owner must restore first stays on a warm worker until the new owner's standby is warm.
    """
    workers = sorted(states)
    targets = _balance_owners(partitions, states)
    standbys = _place_standbys(partitions, states, targets, min(replicas, len(workers) - 1))
    assignments = {worker: TargetAssignment() for worker in workers}
    for partition in range(partitions):
        warm = [worker for worker in workers if states[worker].is_warm(partition)]
        # The current owner, or the worker that comes closest to one.
        current = min(workers, key=lambda worker: _rank(states[worker], partition))
        owner, keepers = targets[partition], set(standbys[partition])
        if owner not in warm and current in warm:
            assignments[owner].warmup.add(partition)
            keepers.add(owner)
            owner = current
        cold = keepers.difference(warm)
        # A standby that moves is kept until the new one is warm.
        leaving = [
            worker
            for worker in warm
            if partition in states[worker].standby and worker not in keepers and worker != owner
        ]
        for receiver, former in zip(sorted(cold - {targets[partition]}), leaving, strict=False):
            assignments[receiver].warmup.add(partition)
            keepers.add(former)
        assignments[owner].active.add(partition)
        for keeper in keepers - {owner}:
            assignments[keeper].standby.add(partition)
    return assignments


def _rank(state: ClientState, partition: int) -> tuple[bool, bool, float]:
    """Return the rank of a worker as owner; the lowest is the best.

    The order is: warm owners, warm standbys, owners, all others by their lag.
    """
    return not state.is_warm(partition), partition not in state.active, state.lag(partition)


def _balance_owners(partitions: int, states: Mapping[str, ClientState]) -> list[str]:
    """Return the target owner of each partition, once every standby is warm."""
    owned: dict[str, set[int]] = {worker: set() for worker in sorted(states)}
    for partition in range(partitions):
        best_rank = min(_rank(state, partition)[:2] for state in states.values())
        best = [worker for worker in owned if _rank(states[worker], partition)[:2] == best_rank]
        owned[min(best, key=lambda worker: (len(owned[worker]), states[worker].lag(partition)))].add(partition)
    while True:
        fewest, highest = min(map(len, owned.values())), max(map(len, owned.values()))
        if highest - fewest < 2:
            return [next(worker for worker in owned if partition in owned[worker]) for partition in range(partitions)]
        moves = (
            (states[receiver].lag(partition), partition, receiver, giver)
            for giver in owned if len(owned[giver]) == highest
            for receiver in owned if len(owned[receiver]) == fewest
            for partition in owned[giver]
        )  # fmt: skip
        _, partition, receiver, giver = min(moves)
        owned[giver].remove(partition)
        owned[receiver].add(partition)


def _place_standbys(
    partitions: int, states: Mapping[str, ClientState], owners: list[str], replicas: int
) -> list[set[str]]:
    """Return the workers with a standby of each partition.

    The standbys of one owner are spread over many workers.
    """
    load = {worker: owners.count(worker) for worker in sorted(states)}
    #: (owner, worker) -> number of the owner's partitions with a standby on that worker.
    pairs: dict[tuple[str, str], int] = {}
    placed: list[set[str]] = []
    for partition, owner in enumerate(owners):
        candidates = [worker for worker in load if worker != owner]
        candidates.sort(
            key=lambda worker: (
                not states[worker].is_warm(partition) or partition not in states[worker].standby,
                load[worker], pairs.get((owner, worker), 0), states[worker].lag(partition),
            )
        )  # fmt: skip
        placed.append(set(candidates[:replicas]))
        for worker in placed[-1]:
            load[worker] += 1
            pairs[owner, worker] = pairs.get((owner, worker), 0) + 1
    while replicas:
        moves = [
            (load[receiver] - load[giver], states[receiver].lag(partition), partition, receiver, giver)
            for partition, keepers in enumerate(placed)
            for giver in keepers
            for receiver in load
            if load[giver] - load[receiver] > 1 and receiver not in keepers and receiver != owners[partition]
        ]
        if not moves:
            break
        _, _, partition, receiver, giver = min(moves)
        placed[partition] ^= {receiver, giver}
        load[giver] -= 1
        load[receiver] += 1
    return placed
