"""Which worker has which partition: nothing twice, nothing cold while something is warm, and soon evenly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from chunks.assignment import WARM_RECORDS, ClientState, TargetAssignment, assign

#: What each round brings: a worker that comes or goes, and whether all copies are warm before the next.
ROUNDS = st.lists(st.tuples(st.sampled_from(["comes", "goes"]), st.integers(0, 9), st.booleans()), max_size=8)


def states_after(assignments: Mapping[str, TargetAssignment], warm: bool = True) -> dict[str, ClientState]:
    """The states of workers some time after an assignment: standbys lag a little, new ones far unless `warm`."""
    return {
        worker: ClientState(
            active=assignment.active,
            standby=assignment.standby,
            lags={**dict.fromkeys(assignment.active, 0), **dict.fromkeys(assignment.standby - assignment.warmup, 10)},
            warmed=assignment.warmup if warm else (),
        )
        for worker, assignment in assignments.items()
    }


def settled(partitions: int, assignments: dict[str, TargetAssignment], replicas: int) -> dict[str, TargetAssignment]:
    """What comes of it when each worker asks for another rebalance as often as it was told to."""
    for _ in range(3):
        if not any(assignment.warmup for assignment in assignments.values()):
            return assignments
        assignments = assign(partitions, states_after(assignments), replicas)
    raise AssertionError(f"it never ends: {assignments}")


def owner(assignments: Mapping[str, TargetAssignment], partition: int) -> str:
    (found,) = [worker for worker, assignment in assignments.items() if partition in assignment.active]
    return found


@given(st.integers(1, 12), st.integers(0, 2), ROUNDS)
def test_whoever_comes_and_goes_each_partition_has_one_owner_that_is_warm_and_as_many_copies_as_wanted(
    partitions: int, replicas: int, rounds: list
):
    assignments = assign(partitions, {"w0": ClientState(lags=dict.fromkeys(range(partitions), 0))}, replicas)
    for number, (what, which, warm) in enumerate(rounds, 1):
        states = states_after(assignments, warm)
        if what == "comes" or len(states) == 1:
            states[f"w{number}"] = ClientState()
        else:
            del states[sorted(states)[which % len(states)]]
        assignments = assign(partitions, states, replicas)
        assert sorted(partition for assignment in assignments.values() for partition in assignment.active) == list(
            range(partitions)
        )
        copies = Counter(partition for assignment in assignments.values() for partition in assignment.standby)
        for partition in range(partitions):
            assert copies[partition] >= min(replicas, len(assignments) - 1)
            if any(state.is_warm(partition) for state in states.values()):
                assert states[owner(assignments, partition)].is_warm(partition)
        assert all(
            not assignment.active & assignment.standby and assignment.warmup <= assignment.standby
            for assignment in assignments.values()
        )
    assignments = settled(partitions, assignments, replicas)
    counts = [len(assignment.active) for assignment in assignments.values()]
    loads = [assignment.load for assignment in assignments.values()]
    assert max(counts) - min(counts) < 2
    assert max(loads) - min(loads) < 2
    assert sum(loads) == partitions * (1 + min(replicas, len(assignments) - 1))
    assert assign(partitions, states_after(assignments), replicas) == assignments, "another rebalance changes something"


def test_a_worker_that_joins_makes_copies_first_and_takes_over_when_they_are_warm():
    one = {"a": ClientState(range(4), lags=dict.fromkeys(range(4), 0))}
    joined = assign(4, {**one, "b": ClientState()}, replicas=0)
    assert joined == {"a": TargetAssignment({0, 1, 2, 3}), "b": TargetAssignment(standby={0, 1}, warmup={0, 1})}
    assert settled(4, joined, replicas=0) == {"a": TargetAssignment({2, 3}), "b": TargetAssignment({0, 1})}


def test_what_is_small_moves_at_once():
    few = dict.fromkeys(range(4), WARM_RECORDS)
    assignments = assign(
        4, {"a": ClientState(range(4), lags=dict.fromkeys(range(4), 0)), "b": ClientState(lags=few)}, 0
    )
    assert assignments == {"a": TargetAssignment({2, 3}), "b": TargetAssignment({0, 1})}


def test_a_worker_that_returns_with_its_disk_gets_what_it_had():
    everything = {"a": ClientState(range(4), lags=dict.fromkeys(range(4), 0))}
    back = ClientState(lags={0: 10**6, 1: 10**6, 2: 500, 3: 700})
    assert assign(4, {**everything, "b": back}, 1)["b"] == TargetAssignment({2, 3}, {0, 1})


def test_of_three_workers_on_four_partitions_none_has_nothing():
    assignments = assign(4, {name: ClientState() for name in "abc"}, replicas=1)
    assert sorted(len(assignment.active) for assignment in assignments.values()) == [1, 1, 2]
    assert sorted(assignment.load for assignment in assignments.values()) == [2, 3, 3]


def test_when_a_worker_dies_those_with_its_copies_go_on_whatever_else_they_have():
    assignments = {
        "a": TargetAssignment({0, 1}, {2}),
        "b": TargetAssignment({2, 3}, {0, 1}),
        "c": TargetAssignment(set(), {3}),
    }
    states = states_after(assignments)
    del states["a"]
    after = assign(4, states, replicas=1)
    assert after["b"].active == {0, 1, 2} | {3} - after["c"].active
    assert after["c"].active <= {3}, "c would have to read 0, 1 or 2 first"
    assert [len(assignment.active) for assignment in settled(4, after, 1).values()] == [2, 2]


def test_more_workers_than_partitions_leave_the_others_with_copies():
    assignments = assign(2, {name: ClientState() for name in "abcd"}, replicas=1)
    assert sorted((len(assignment.active), len(assignment.standby)) for assignment in assignments.values()) == [
        (0, 1),
        (0, 1),
        (1, 0),
        (1, 0),
    ]


def test_a_copy_that_moves_is_kept_until_there_is_the_new_one():
    assignments = {"a": TargetAssignment({0, 1}, {2, 3}), "b": TargetAssignment({2, 3}, {0, 1})}
    joined = assign(4, {**states_after(assignments), "c": ClientState()}, replicas=1)
    kept = Counter(one for worker in "ab" for one in (*joined[worker].active, *joined[worker].standby))
    assert kept == dict.fromkeys(range(4), 2)
    assert joined["c"].warmup == joined["c"].standby != set()


def test_two_that_claim_a_partition_are_told_apart_by_how_far_they_are():
    claims = {"a": ClientState({0}, lags={0: 10**6}), "b": ClientState({0}, lags={0: 0})}
    assert assign(1, claims, 0)["b"].active == {0}
