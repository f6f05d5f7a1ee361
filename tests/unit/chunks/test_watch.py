"""Whoever watches a key is woken by its changes, misses none, and is told when there will be no more."""

from __future__ import annotations

import asyncio

import pytest

from chunks import ClosedPartition
from chunks.watch import KeyWatches

LONG_S = 30


@pytest.fixture
def watches() -> KeyWatches:
    return KeyWatches(lambda key: key.partition(b"\x00")[0])


def test_a_change_wakes_those_who_watch_its_key_and_nobody_else(watches: KeyWatches):
    async def run() -> None:
        with watches.watch(b"ann") as ann, watches.watch(b"ann") as too, watches.watch(b"bob") as bob:
            watches.notify([b"ann\x00o-1", b"cleo"])
            assert await ann.wait(LONG_S)
            assert await too.wait(LONG_S)
            assert not await bob.wait(0.01)
            assert not await ann.wait(0.01), "told once"

    asyncio.run(run())


def test_a_change_while_nobody_waits_ends_the_next_wait(watches: KeyWatches):
    async def run() -> None:
        with watches.watch(b"ann") as ann:
            waiting = asyncio.create_task(ann.wait(LONG_S))
            await asyncio.sleep(0)
            watches.notify([b"ann"])
            watches.notify([b"ann"])
            assert await waiting
            watches.notify([b"ann"])
            assert await ann.wait(LONG_S)

    asyncio.run(run())


def test_when_the_partition_is_given_up_every_wait_ends(watches: KeyWatches):
    async def run() -> None:
        with watches.watch(b"ann") as ann, watches.watch(b"bob") as bob:
            waiting = asyncio.create_task(ann.wait(LONG_S))
            await asyncio.sleep(0)
            watches.end()
            watches.notify([b"ann"])
            for wait in (waiting, bob.wait(LONG_S), ann.wait(LONG_S)):
                with pytest.raises(ClosedPartition):
                    await wait

    asyncio.run(run())


def test_nothing_is_kept_of_those_who_have_gone(watches: KeyWatches):
    with watches.watch(b"ann"):
        with watches.watch(b"ann"):
            pass
        assert list(watches._watches) == [b"ann"]
    assert not watches._watches


def test_without_a_rule_a_key_is_watched_as_itself():
    async def run() -> None:
        watches = KeyWatches()
        with watches.watch(b"ann\x00o-1") as one:
            watches.notify([b"ann\x00o-1"])
            assert await one.wait(LONG_S)

    asyncio.run(run())
