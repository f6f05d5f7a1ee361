"""How pytest-xdist shares the tests between processes: longest first, and tests with a common fixture in one process.

A unit is what one process runs as a whole: the tests with the same mark `group`, the tests of a module that share a
fixture of the module, or a single test. (pytest-xdist has marks for groups as well, but they have no effect with the
node ids of pytest 9.)
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

UNITS_FILE = "units.json"
#: About how many seconds a test takes that has no mark `cost`, by its folder.
SECONDS = {"system": 5, "faults": 7, "real": 1}


class UnitScheduling(LoadScopeScheduling):
    """Gives each process the next unit when it has almost finished the one before."""

    def __init__(self, config: pytest.Config, log: Producer, folder: Path) -> None:
        super().__init__(config, log)
        self._units_file = folder / UNITS_FILE
        self._units: dict[str, str] = {}
        config.option.loadscopereorder = False

    def schedule(self) -> None:
        """Share the tests once all processes have collected them."""
        self._units = self._units or json.loads(self._units_file.read_text())
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self._units[nodeid]


def arrange(items: list[pytest.Item], folder: Path) -> None:
    """Put the units that take longest first, and write the unit of each test down for the scheduler."""
    costs: dict[str, float] = {}
    for item in items:
        unit = _unit(item)
        costs[unit] = costs.get(unit, 0) + _cost(item)
    items.sort(key=lambda item: (-costs[_unit(item)], _unit(item)))
    # All processes write the same.
    new = folder / f"{UNITS_FILE}.{os.getpid()}"
    new.write_text(json.dumps({item.nodeid: _unit(item) for item in items}))
    new.replace(folder / UNITS_FILE)


def _unit(item: pytest.Item) -> str:
    group = item.get_closest_marker("group")
    # The tests on each database server are a unit of their own.
    product = item.callspec.params.get("database_product", "") if hasattr(item, "callspec") else ""
    if group is not None:
        return f"{group.args[0]}-{product}"
    return f"{item.nodeid.partition('::')[0]}-{product}" if _uses_module_fixture(item) else item.nodeid


def _uses_module_fixture(item: pytest.Item) -> bool:
    definitions = item._fixtureinfo.name2fixturedefs.values() if isinstance(item, pytest.Function) else ()
    return any(definition.scope == "module" for fixtures in definitions for definition in fixtures)


def _cost(item: pytest.Item) -> float:
    mark = item.get_closest_marker("cost")
    if mark is not None:
        return float(mark.args[0])
    seconds = SECONDS.get(item.path.parent.name, 0)
    return min(seconds, 1) if _unit(item) != item.nodeid and item.path.parent.name == "system" else seconds
