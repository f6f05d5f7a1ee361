"""One rig for the faults that it survives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.artifacts import Artifacts
from tests.faults.fault_setup import Rig


@pytest.fixture(scope="module")
def rig(artifacts: Artifacts, database: dict, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A shop with its source and two workers; what one fault has ended is started again before the next one."""
    with Rig(artifacts, database, tmp_path_factory.mktemp("rig")) as one:
        yield one


@pytest.fixture(autouse=True)
def _whole(rig: Rig) -> Iterator[None]:
    rig.wait_whole()
    yield
    rig.mend()
