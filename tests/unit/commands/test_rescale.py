"""The pure parts of `lately rescale`: names, refusals, and the order in which events are copied."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest
from aiokafka import TopicPartition
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from app.control import generation, source_state
from app.control.source_state import SourceStates, TopicLayout, VerifyResult
from app.errors import BadSetting, WrongGeneration
from app.settings import Settings
from app.topics import Topics
from commands.rescale.cleanup import _require_verified
from commands.rescale.command import rescale
from commands.rescale.log_copy import merge_by_time
from commands.rescale.next_generation import next_generation
from source import locks

FIRST = Settings(id="shop", topic_prefix="eu-", data_dir="tables")
SECOND = next_generation(FIRST, 6)


def names(settings: Settings) -> set[str]:
    return {topic.name for topic in Topics(settings).all} | {settings.group, settings.folder}


def test_generations_share_no_name():
    third = next_generation(SECOND, 4)
    assert (third.generation, third.partitions) == (3, 4)
    found = [names(one) for one in (FIRST, SECOND, third)]
    assert len(set.union(*found)) == sum(map(len, found))


def test_the_first_generation_has_the_names_of_before():
    assert (FIRST.group, FIRST.prefix, FIRST.folder) == ("shop", "eu-", "tables")
    assert (SECOND.group, SECOND.prefix, SECOND.folder) == ("shop-g2", "eu-g2-", "tables/g2")


@pytest.mark.parametrize("mode", ["outbox", "watermark"])
def test_locks_of_tables_with_long_names_are_three(mode: str):
    named = Settings(mysql_database="d" * 64, source_table="t" * 64, source_outbox="o" * 64, source_mode=mode)
    found = {locks.lock_name(named, kind) for kind in (locks.LEADER, locks.HANDOVER, locks.SNAPSHOT)}
    assert len(found) == 3
    assert {len(one) for one in found} == {64}
    assert (
        locks.lock_name(Settings(mysql_database="shop", source_outbox="purchase_outbox"), locks.LEADER)
        == "lately:shop.purchase_outbox"
    )


def test_the_same_number_is_refused():
    with pytest.raises(BadSetting, match="LATELY_PARTITIONS is 4 already"):
        next_generation(FIRST, 4)


@pytest.mark.parametrize(
    "words",
    [[], ["--partitions", "0"], ["--partitions", "-1"], ["--partitions", "six"], ["--partitions", "10001"],
     ["--partitions", "6", "--cleanup"], ["--cleanup", "--abandon"], ["--partitions", "6", "--within", "-1"]],
)  # fmt: skip
def test_bad_input_ends_with_2_and_names_the_option(words: list[str]):
    said = CliRunner().invoke(rescale, words)
    assert said.exit_code == 2
    assert "--partitions" in said.output or "--within" in said.output


def test_the_first_generation_counts_without_a_record_and_no_other_does():
    generation.require_active(FIRST, SourceStates())
    with pytest.raises(WrongGeneration, match="there is no generation 2"):
        generation.current_layout(SECOND, SourceStates())


def test_a_generation_that_is_being_filled_lets_workers_start_and_nobody_publish():
    known = SourceStates(layout=TopicLayout(partitions=6, predecessor=(1, 4)))
    assert generation.require_not_superseded(SECOND, known).active_since is None
    with pytest.raises(WrongGeneration, match="still being filled: `lately rescale --partitions 6`"):
        generation.require_active(SECOND, known)


def test_a_generation_that_is_given_up_lets_nobody_start():
    known = SourceStates(layout=TopicLayout(partitions=6, predecessor=(1, 4), is_abandoned=True))
    with pytest.raises(WrongGeneration, match="`lately rescale --abandon`"):
        generation.require_not_superseded(SECOND, known)


def test_a_former_generation_says_which_settings_to_use():
    known = SourceStates(layout=TopicLayout(partitions=4, active_since=0, successor=(2, 6)))
    with pytest.raises(WrongGeneration, match="set LATELY_GENERATION=2 and LATELY_PARTITIONS=6"):
        generation.require_active(FIRST, known)


@pytest.mark.parametrize(
    "verified",
    [None, VerifyResult(began_at=9), VerifyResult(began_at=9, clean_at=8), VerifyResult(began_at=6, clean_at=6)],
)
def test_what_was_not_verified_since_the_switch_is_not_cleaned_up(verified: VerifyResult | None):
    with pytest.raises(WrongGeneration, match="first run `lately verify`"):
        _require_verified(TopicLayout(partitions=6, active_since=7), verified)


def test_what_was_verified_since_the_switch_is():
    _require_verified(TopicLayout(partitions=6, active_since=7), VerifyResult(began_at=9, clean_at=9))


def test_states_of_a_rescale_survive_their_record():
    for one in (
        TopicLayout(partitions=6, predecessor=(1, 4), active_since=5, successor=(3, 8)),
        source_state.CopyProgress(offsets={0: 3}, events=2),
    ):
        assert source_state.decode(*source_state.encode(one)) == one


class Record(NamedTuple):
    partition: int
    offset: int
    timestamp: int


class Reader:
    """Partitions in memory, read some records at a time."""

    def __init__(self, partitions: list[list[Record]]) -> None:
        self._partitions, self._at = partitions, dict.fromkeys(range(len(partitions)), 0)

    async def position(self, tp: TopicPartition) -> int:
        return self._at[tp.partition]

    async def getmany(self, *tps: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        found = {}
        for tp in tps:
            at = self._at[tp.partition]
            found[tp] = self._partitions[tp.partition][at : at + 2]
            self._at[tp.partition] += len(found[tp])
        return found


@given(st.lists(st.lists(st.integers(0, 9), max_size=7), min_size=1, max_size=4))
def test_events_are_copied_each_once_in_their_partitions_order_and_by_time(times: list[list[int]]):
    partitions = [[Record(number, at, time) for at, time in enumerate(some)] for number, some in enumerate(times)]
    more = [[*some, Record(number, len(some), 0)] for number, some in enumerate(partitions)]

    async def read() -> list[Record]:
        ends = {TopicPartition("orders", number): len(some) for number, some in enumerate(partitions)}
        return [one async for one in merge_by_time(Reader(more), ends)]

    found = asyncio.run(read())
    assert [[one for one in found if one.partition == number] for number in range(len(times))] == partitions
    if all(some == sorted(some) for some in times):
        assert [one.timestamp for one in found] == sorted(one.timestamp for one in found)
