"""What barriers prove is true in every interleaving of a pipeline, and an idle pipeline is proven completely."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.barriers import MAX_BARRIERS, Barriers

# -- a model of the pipeline

PARTITIONS = range(2)
#: The topics of the model; each but the last has an agent that reads it, and the last one a copy.
TOPICS = range(4)
AGENTS = TOPICS[:-1]
COPY = TOPICS[-1]

#: Steps of an interleaving; one in some hundred places an order.
STEPS = 2_000

#: An order: its partition and offset in the first topic.
Order = tuple[int, int]


@dataclass
class Transaction:
    """Records of one agent in the next topic; readers see them when the partition has its marker."""

    agent: int
    partition: int
    next: int
    outputs: set[int] = field(default_factory=set)
    is_committed: bool | None = None
    marked: set[int] = field(default_factory=set)


@dataclass
class Entry:
    """A record that was derived from some orders, or a marker."""

    orders: set[Order]
    transaction: Transaction | None = None
    is_marker: bool = False


class Pipeline:
    """Topics with transactions, agents, and a copy, each in a state of its own."""

    def __init__(self) -> None:
        self.logs: list[list[list[Entry]]] = [[[] for _ in PARTITIONS] for _ in TOPICS]
        self.durable = [dict.fromkeys(PARTITIONS, 0) for _ in AGENTS]
        self.committed = [dict.fromkeys(PARTITIONS, 0) for _ in AGENTS]
        self.transactions: dict[tuple[int, int], Transaction] = {}
        self.applied = dict.fromkeys(PARTITIONS, 0)
        self.copy: set[Order] = set()

    def place_order(self, partition: int) -> None:
        log = self.logs[0][partition]
        log.append(Entry({(partition, len(log))}))

    def ends(self, topic: int) -> dict[int, int]:
        """The high watermarks."""
        return {partition: len(self.logs[topic][partition]) for partition in PARTITIONS}

    def stable_end(self, topic: int, partition: int) -> int:
        """The last stable offset: of the first record that no marker decides yet."""
        log = self.logs[topic][partition]
        for offset, entry in enumerate(log):
            if entry.transaction is not None and partition not in entry.transaction.marked:
                return offset
        return len(log)

    def read(self, topic: int, partition: int, first: int, count: int) -> tuple[int, set[Order]]:
        """The next position, and the orders of the committed records before it."""
        end = min(self.stable_end(topic, partition), first + count)
        orders = set()
        for entry in self.logs[topic][partition][first:end]:
            if entry.transaction is None or entry.transaction.is_committed:
                orders |= entry.orders
        return max(first, end), orders

    def begin(self, agent: int, partition: int, count: int, output: int) -> None:
        """An agent reads some offsets and sends what follows from them; only markers need no transaction."""
        if (agent, partition) in self.transactions:
            return
        position, orders = self.read(agent, partition, self.durable[agent][partition], count)
        if not orders:
            self.durable[agent][partition] = position
            return
        transaction = self.transactions[agent, partition] = Transaction(agent, partition, position)
        for number, order in enumerate(sorted(orders)):
            target = (output + number) % len(PARTITIONS)
            transaction.outputs.add(target)
            self.logs[agent + 1][target].append(Entry({order}, transaction))

    def decide(self, agent: int, partition: int, is_committed: bool) -> None:
        """Kafka acknowledges the end of a transaction, and writes the markers later."""
        transaction = self.transactions.get((agent, partition))
        if transaction is None or transaction.is_committed is not None:
            return
        transaction.is_committed = is_committed
        if is_committed:
            self.durable[agent][partition] = transaction.next

    def mark(self, agent: int, partition: int) -> None:
        """Kafka writes the next marker of a decided transaction."""
        transaction = self.transactions.get((agent, partition))
        if transaction is None or transaction.is_committed is None:
            return
        target = min(transaction.outputs - transaction.marked)
        transaction.marked.add(target)
        self.logs[agent + 1][target].append(Entry(set(), is_marker=True))
        if transaction.marked == transaction.outputs:
            del self.transactions[agent, partition]

    def commit_offset(self, agent: int, partition: int) -> None:
        self.committed[agent][partition] = self.durable[agent][partition]

    def change_owner(self, agent: int, partition: int) -> None:
        """The next owner begins behind the last record that was processed, before markers."""
        position = self.durable[agent][partition]
        log = self.logs[agent][partition]
        while (agent, partition) not in self.transactions and position and log[position - 1].is_marker:
            position -= 1
        self.durable[agent][partition] = position

    def apply(self, partition: int, count: int) -> None:
        self.applied[partition], orders = self.read(COPY, partition, self.applied[partition], count)
        self.copy |= orders

    def run(self) -> None:
        """Let everything come to rest."""
        for agent in AGENTS:
            for partition in PARTITIONS:
                self.finish(agent, partition)
            for partition in PARTITIONS:
                self.begin(agent, partition, 10**6, 0)
                self.finish(agent, partition)
                # The markers of other transactions may have been in the way.
                self.begin(agent, partition, 10**6, 0)
                self.finish(agent, partition)
                self.commit_offset(agent, partition)
        for partition in PARTITIONS:
            self.apply(partition, 10**6)

    def finish(self, agent: int, partition: int) -> None:
        self.decide(agent, partition, True)
        while (agent, partition) in self.transactions:
            self.mark(agent, partition)


class Interleaving:
    """The steps of a pipeline and of observations, each at any time, but some of them more often than others."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.pipeline = Pipeline()
        self.barriers = Barriers()
        #: The parts of the open observation.
        self.positions: list[dict[int, int]] = []
        self.ends: list[dict[int, int]] = []
        self.contained: set[int] = set()

    def run(self, count: int) -> None:
        steps = [self.place_order, self.begin, self.commit, self.abort, self.mark, self.commit_offset, self.apply,
                 self.process_everything, self.change_owner, self.observe]  # fmt: skip
        # A pipeline that is always far behind would prove nothing.
        weights = [1, *(self.dice.choice([4, 12, 36]) for _ in steps[1:])]
        for step in self.dice.choices(steps, weights, k=count):
            step(self.dice.choice(AGENTS), self.dice.choice(PARTITIONS))
            self.check()

    def place_order(self, _agent: int, partition: int) -> None:
        self.pipeline.place_order(partition)

    def begin(self, agent: int, partition: int) -> None:
        self.pipeline.begin(agent, partition, self.dice.randint(1, 4), self.dice.choice(PARTITIONS))

    def commit(self, agent: int, partition: int) -> None:
        self.pipeline.decide(agent, partition, True)

    def abort(self, agent: int, partition: int) -> None:
        self.pipeline.decide(agent, partition, False)

    def mark(self, agent: int, partition: int) -> None:
        self.pipeline.mark(agent, partition)

    def commit_offset(self, agent: int, partition: int) -> None:
        self.pipeline.commit_offset(agent, partition)

    def apply(self, _agent: int, partition: int) -> None:
        self.pipeline.apply(partition, self.dice.randint(1, 10))

    def process_everything(self, agent: int, partition: int) -> None:
        self.pipeline.begin(agent, partition, 10**6, self.dice.choice(PARTITIONS))
        if self.dice.random() < 0.5:
            self.pipeline.finish(agent, partition)
        else:
            self.pipeline.decide(agent, partition, True)
        self.pipeline.commit_offset(agent, partition)

    def change_owner(self, agent: int, partition: int) -> None:
        if agent:  # `orders` contains no markers
            self.pipeline.change_owner(agent, partition)

    def observe(self, _agent: int = 0, _partition: int = 0) -> None:
        """Read some more positions or, after all of them, ends."""
        for _ in range(self.dice.choice([1, 3, 2 * len(TOPICS)])):
            if len(self.positions) < len(TOPICS):
                number = len(self.positions)
                offsets = self.pipeline.applied if number == COPY else self.pipeline.committed[number]
                self.positions.append(dict(offsets))
            else:
                self.ends.append(self.pipeline.ends(len(self.ends)))
            if len(self.ends) == len(TOPICS):
                self.barriers.observe(self.positions, self.ends)
                self.positions, self.ends = [], []

    def check(self) -> None:
        """Everything before the proven offsets is in the copy."""
        contained = self.barriers.contained(self.pipeline.applied) or {}
        missing = {(p, offset) for p, end in contained.items() for offset in range(end)} - self.pipeline.copy
        assert not missing, contained
        self.contained.add(sum(contained.values()))


@given(seed=st.integers(0, 2**32))
def test_in_every_interleaving_the_copy_contains_what_is_proven_and_at_the_end_everything_is(seed: int):
    interleaving = Interleaving(random.Random(seed))
    interleaving.run(STEPS)
    interleaving.pipeline.run()
    # One observation may have begun before the end.
    for _ in range(100):
        interleaving.observe()
        interleaving.check()
    pipeline, barriers = interleaving.pipeline, interleaving.barriers
    assert barriers.contained(pipeline.applied) == pipeline.ends(0)
    assert barriers.count == 0


def test_in_most_interleavings_something_is_proven_before_the_end():
    def count_proofs(seed: int) -> int:
        interleaving = Interleaving(random.Random(seed))
        interleaving.run(STEPS)
        return len(interleaving.contained)

    counts = [count_proofs(seed) for seed in range(40)]
    assert sum(count > 2 for count in counts) > len(counts) / 2, counts


# -- single cases, with one partition


def observe(barriers: Barriers, positions: list[int], ends: list[int]) -> None:
    barriers.observe([{0: offset} for offset in positions], [{0: offset} for offset in ends])


def contained(barriers: Barriers, applied: int) -> int | None:
    offsets = barriers.contained({0: applied})
    return None if offsets is None else offsets[0]


@pytest.fixture
def proven() -> Barriers:
    """Ten orders have passed a pipeline that is idle."""
    barriers = Barriers()
    observe(barriers, [10, 20, 30, 40], [10, 20, 30, 40])
    assert contained(barriers, 40) == 10
    return barriers


def test_before_the_first_observation_nothing_is_proven():
    assert Barriers().contained({0: 10}) is None


def test_an_idle_pipeline_is_proven_by_one_observation_and_no_further_barrier_starts(proven):
    observe(proven, [10, 20, 30, 40], [10, 20, 30, 40])
    assert (proven.count, contained(proven, 40)) == (0, 10)


def test_a_barrier_waits_at_each_topic_for_its_reader():
    barriers = Barriers()
    observe(barriers, [10, 15, 30, 40], [12, 20, 30, 40])
    observe(barriers, [10, 20, 30, 40], [12, 22, 35, 40])
    assert contained(barriers, 100) is None
    observe(barriers, [10, 22, 34, 40], [12, 22, 36, 40])
    assert contained(barriers, 100) is None
    observe(barriers, [10, 22, 35, 40], [12, 22, 36, 45])
    assert contained(barriers, 44) is None
    assert contained(barriers, 45) == 10


def test_a_copy_that_is_read_again_contains_nothing_until_it_is_complete(proven):
    assert contained(proven, 5) is None
    observe(proven, [10, 20, 30, 5], [10, 20, 30, 40])
    assert contained(proven, 39) is None
    assert contained(proven, 40) == 10


def test_a_newer_barrier_replaces_the_older_ones():
    barriers = Barriers()
    for number in range(1, 6):
        observe(barriers, [number, 0, 0, 0], [10, number, 0, 0])
    assert barriers.count == 5
    observe(barriers, [5, 5, 7, 0], [10, 5, 7, 9])
    assert contained(barriers, 9) == 5
    assert barriers.count == 0


def test_during_a_backlog_the_number_of_barriers_is_limited_and_the_oldest_and_newest_remain():
    barriers = Barriers()
    for number in range(1, 1_000):
        observe(barriers, [number, 0, 0, 0], [number, number, 0, 0])
        assert barriers.count <= MAX_BARRIERS
    observe(barriers, [999, 1, 0, 0], [999, 999, 0, 0])
    assert contained(barriers, 0) == 1
    observe(barriers, [999, 999, 0, 0], [999, 999, 0, 0])
    assert contained(barriers, 0) == 999


def test_an_agent_that_goes_back_over_markers_changes_nothing(proven):
    observe(proven, [10, 19, 29, 40], [10, 20, 30, 40])
    assert contained(proven, 40) == 10


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_that_was_created_again_invalidates_everything(proven, topic):
    ends = [10, 20, 30, 40]
    ends[topic] = 3
    observe(proven, [10, 20, 30, 40], ends)
    assert contained(proven, 40) is None

    # It grows beyond the former position, which its reader has not left yet.
    ends[topic] = 100
    observe(proven, [10, 20, 30, 40], ends)
    observe(proven, [10, 20, 30, 40], ends)
    assert (contained(proven, 40), contained(proven, 100)) == (None, None)

    positions = [10, 20, 30, 40]
    positions[topic] = 2
    observe(proven, positions, ends)
    positions[topic] = 100
    observe(proven, positions, ends)
    assert contained(proven, max(40, positions[3])) == positions[0]


def test_an_agent_of_orders_that_goes_back_invalidates_everything(proven):
    observe(proven, [9, 20, 30, 40], [15, 20, 30, 40])
    assert contained(proven, 40) is None
    observe(proven, [11, 20, 30, 40], [15, 20, 30, 40])
    assert contained(proven, 40) == 11


def test_a_position_behind_the_end_belongs_to_a_former_topic_of_this_name():
    barriers = Barriers()
    observe(barriers, [10, 20, 30, 40], [5, 20, 30, 40])
    assert contained(barriers, 40) is None
    observe(barriers, [10, 20, 30, 40], [50, 20, 30, 40])
    assert contained(barriers, 40) is None
    observe(barriers, [4, 20, 30, 40], [50, 20, 30, 40])
    observe(barriers, [6, 20, 30, 40], [50, 20, 30, 40])
    assert contained(barriers, 40) == 6
