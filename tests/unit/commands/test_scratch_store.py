"""Stores of interrupted commands: their format on disk stays, and one process uses them at a time."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from app.errors import FolderInUse
from app.kafka.order_log import EventSelection
from app.settings import Settings
from commands.replay.replay_table import _folder_name
from commands.scratch_store import open_scratch_store
from commands.verify.mysql_copy import CopyState, _decode_state


def test_a_store_in_use_is_named_with_its_user_and_a_closed_one_is_continued(tmp_path: Path):
    path = tmp_path / "0.db"
    store = open_scratch_store(path, "replay")
    with pytest.raises(FolderInUse, match=r"in use by another replay .*: wait for its end, or stop it"):
        open_scratch_store(path, "replay")
    store.apply([(b"key", b"value")], 1)
    store.close()
    continued = open_scratch_store(path, "replay")
    assert continued.get(b"key") == b"value"
    continued.delete()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replay_is_found_by_other_versions():
    settings = Settings(id="shop", topic_prefix="t-")
    names = [
        _folder_name(settings, selection)
        for selection in (EventSelection(), EventSelection("ann", "o-1", None, (2, 1500)), EventSelection(since_ms=5))
    ]
    assert names == ["fe2e83a41f9f", "88e6f96bbe65", "770dc2cebfbb"]


def test_the_progress_of_a_copy_is_stored_as_other_versions_store_it():
    state = CopyState("shop.orders", 5.5, ["o-1", 7], 2, True)
    encoded = msgspec.json.encode(state)
    assert encoded == b'{"table":"shop.orders","began":5.5,"after":["o-1",7],"rows":2,"done":true}'
    assert _decode_state(encoded) == state
