"""Which worker has which partition: worked out from what each has now, without asking anybody.

After Kafka Streams' assignor (KIP-441): nobody becomes the owner of a partition that another one could process at once.
Who is to have it keeps a copy first, and takes over in a second rebalance, when that is warm.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

#: What this assignment is called in a group; all members of one must know it.
PROTOCOL = "chunks"
#: So few changelog records are read in well under a second (bench/results.md, recovery).
WARM_RECORDS = 50_000


@dataclass(frozen=True)
class ClientState:
    """What a worker has: the partitions it processed until now, and those of which it keeps copies.

    `behind`: partition -> changelog records until it is as far as the furthest; one that is not there: it has nothing.
    `warmed`: copies that it was told to make, and that are as good as the owner's.
    """

    active: Collection[int] = ()
    standby: Collection[int] = ()
    lags: Mapping[int, int] = field(default_factory=dict)
    warmed: Collection[int] = ()

    def lag(self, partition: int) -> float:
        """Records that it would have to read before it could process the partition."""
        return 0 if partition in self.warmed else self.lags.get(partition, math.inf)

    def is_warm(self, partition: int) -> bool:
        """Whether it could process the partition at once."""
        return self.lag(partition) <= WARM_RECORDS


@dataclass
class TargetAssignment:
    """What a worker gets; once those `warming`, which are among `standby`, are warm it asks for another rebalance."""

    active: set[int] = field(default_factory=set)
    standby: set[int] = field(default_factory=set)
    warmup: set[int] = field(default_factory=set)

    @property
    def load(self) -> int:
        """All that it has to keep."""
        return len(self.active) + len(self.standby)


def assign(partitions: int, holdings: Mapping[str, ClientState], replicas: int) -> dict[str, TargetAssignment]:
    """Worker -> its share: each partition once active, with `replicas` copies on others, as far as there are others.

    Nobody has two active partitions more than another, or moves more than that takes. What would have to be read anew
    first stays where it is warm, until the copy is.
    """
    workers = sorted(holdings)
    goal = _balance_owners(partitions, holdings)
    copies = _place_standbys(partitions, holdings, goal, min(replicas, len(workers) - 1))
    shares = {worker: TargetAssignment() for worker in workers}
    for partition in range(partitions):
        warm = [one for one in workers if holdings[one].is_warm(partition)]
        # Who has it now, or else whoever comes closest.
        before = min(workers, key=lambda one: _rank(holdings[one], partition))
        owner, keepers = goal[partition], set(copies[partition])
        if owner not in warm and before in warm:
            shares[owner].warmup.add(partition)
            keepers.add(owner)
            owner = before
        cold = keepers.difference(warm)
        # A copy that moves is kept until there is the new one.
        leaving = [one for one in warm if partition in holdings[one].standby and one not in keepers and one != owner]
        for new, old in zip(sorted(cold - {goal[partition]}), leaving, strict=False):
            shares[new].warmup.add(partition)
            keepers.add(old)
        shares[owner].active.add(partition)
        for keeper in keepers - {owner}:
            shares[keeper].standby.add(partition)
    return shares


def _rank(holding: ClientState, partition: int) -> tuple:
    """The less the better: warm owners, warm copies, owners, the others by what they lack."""
    return not holding.is_warm(partition), partition not in holding.active, holding.lag(partition)


def _balance_owners(partitions: int, holdings: Mapping[str, ClientState]) -> list[str]:
    """The owner of each partition, once all that takes has been copied."""
    owned: dict[str, set[int]] = {worker: set() for worker in sorted(holdings)}
    for partition in range(partitions):
        fit = min(_rank(holding, partition)[:2] for holding in holdings.values())
        able = [one for one in owned if _rank(holdings[one], partition)[:2] == fit]
        owned[min(able, key=lambda one: (len(owned[one]), holdings[one].lag(partition)))].add(partition)
    while True:
        least, most = min(map(len, owned.values())), max(map(len, owned.values()))
        if most - least < 2:
            return [next(one for one in owned if partition in owned[one]) for partition in range(partitions)]
        moves = (
            (holdings[to].lag(partition), partition, to, giver)
            for giver in owned if len(owned[giver]) == most
            for to in owned if len(owned[to]) == least
            for partition in owned[giver]
        )  # fmt: skip
        _, partition, to, giver = min(moves)
        owned[giver].remove(partition)
        owned[to].add(partition)


def _place_standbys(
    partitions: int, holdings: Mapping[str, ClientState], owners: list[str], replicas: int
) -> list[set[str]]:  # fmt: skip
    """The workers with a copy of each partition, once all is copied; those of an owner's are on many others."""
    load = {worker: owners.count(worker) for worker in sorted(holdings)}
    #: Owner -> of whose partitions others have copies.
    backed: dict[tuple[str, str], int] = {}
    found: list[set[str]] = []
    for partition, owner in enumerate(owners):
        others = [one for one in load if one != owner]
        others.sort(
            key=lambda one: (
                not holdings[one].is_warm(partition) or partition not in holdings[one].standby,
                load[one], backed.get((owner, one), 0), holdings[one].lag(partition),
            )
        )  # fmt: skip
        found.append(set(others[:replicas]))
        for one in found[-1]:
            load[one] += 1
            backed[owner, one] = backed.get((owner, one), 0) + 1
    while replicas:
        moves = [
            (load[to] - load[giver], holdings[to].lag(partition), partition, to, giver)
            for partition, keepers in enumerate(found)
            for giver in keepers
            for to in load
            if load[giver] - load[to] > 1 and to not in keepers and to != owners[partition]
        ]
        if not moves:
            break
        _, _, partition, to, giver = min(moves)
        found[partition] ^= {to, giver}
        load[giver] -= 1
        load[to] += 1
    return found
