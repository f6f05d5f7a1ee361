"""What a restore believes of where a changelog ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from chunks import restore
from chunks.restore import Restore, RestoreProgress
from chunks.store import Store

TP = TopicPartition("changelog", 0)


class Reader:
    """Says these ends, one after the other, the last one for ever."""

    def __init__(self, *ends: int) -> None:
        self._ends = list(ends)

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {TP: self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]}


def ends(store: Store, *said: int) -> int:
    tables = SimpleNamespace(store=lambda tp: store)
    found = Restore(SimpleNamespace(tables=tables), Reader(*said), RestoreProgress())
    return asyncio.run(found._read_committed_ends([TP]))[TP]


@pytest.fixture
def store(tmp_path: Path):
    with_ten = Store(tmp_path / "t-0.db").open()
    with_ten.apply([(b"key", b"value")], 10)
    yield with_ten
    with_ten.close()


def test_a_store_that_was_followed_until_now_is_not_ahead_only_because_readers_hear_of_its_commit_later(store: Store):
    store.is_verified = True
    assert ends(store, 4, 4, 11) == 11


def test_a_changelog_that_has_lost_its_end_is_believed_in_the_end(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(restore, "VISIBILITY_TIMEOUT_S", 0.1)
    store.is_verified = True
    assert ends(store, 4) == 4


def test_a_disk_that_was_not_compared_yet_is_not_waited_for(store: Store):
    assert ends(store, 4, 11) == 4
