"""What gives way to workers, and how much."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LOOK = "import os; from commands.priority import lower_priority; lower_priority({}); print(os.nice(0), os.sched_getscheduler(0))"


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has it")
@pytest.mark.parametrize(("idle", "policy"), [(False, "SCHED_OTHER"), (True, "SCHED_IDLE")])
def test_a_report_has_the_lowest_priority_and_idle_only_what_nobody_wants(idle: bool, policy: str):
    done = subprocess.run([sys.executable, "-c", LOOK.format(idle)], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["19", str(getattr(os, policy))]
