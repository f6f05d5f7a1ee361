"""Triggers and first version are those of one moment, also while `setup` replaces the triggers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.settings import Settings
from source import drift_reader


def test_triggers_are_read_again_if_the_versions_began_anew_meanwhile(monkeypatch: pytest.MonkeyPatch):
    versions: Iterator[int] = iter([1, 2, 2])
    reads: Iterator[list[str]] = iter([["old", "old", "old"], ["new", "new", "new"]])
    monkeypatch.setattr(drift_reader, "read_first_version", lambda connection, settings: next(versions))
    monkeypatch.setattr(drift_reader, "read_triggers", lambda connection, settings, table=None: next(reads))
    installed, first_version = drift_reader._read_triggers(None, Settings(), all_tables=False)
    assert (installed, first_version) == (("new", "new", "new"), 2)
