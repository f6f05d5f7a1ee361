"""CPU priority of commands that run beside workers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PRINT_PRIORITY = (
    "import os; from commands.priority import lower_priority; lower_priority({}); "
    "print(os.nice(0), os.sched_getscheduler(0))"
)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has it")
@pytest.mark.parametrize(("idle", "policy"), [(False, "SCHED_OTHER"), (True, "SCHED_IDLE")])
def test_a_command_has_the_lowest_priority_and_with_idle_only_unused_cpu_time(idle: bool, policy: str):
    command = [sys.executable, "-c", PRINT_PRIORITY.format(idle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["19", str(getattr(os, policy))]
