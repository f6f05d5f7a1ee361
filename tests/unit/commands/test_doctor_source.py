"""`lately doctor` lists each problem of the source with its own next step."""

from __future__ import annotations

import time

from app.control.source_state import NONE, LeaderStatus, SourceProblem
from commands.doctor.doctor import _check_leader

MESSAGE = "orders has no trigger for UPDATE, these changes are not captured: run `lately source setup`"


def test_a_problem_is_a_finding_and_the_guarantee_does_not_repeat_it():
    hint = SourceProblem("column-added", "a column is not used: run setup")
    status = LeaderStatus(
        mode="outbox", guarantee=NONE, reasons=(MESSAGE, "a replica: connect to the primary"),
        problems=(SourceProblem("trigger-missing", MESSAGE), hint), written_at=time.time_ns() // 1000, leader="host:1",
    )  # fmt: skip
    findings = {finding.name: finding for finding in _check_leader(status)}
    missing = findings["source trigger-missing"]
    assert (missing.result, missing.fix) == ("failed", "run `lately source setup`")
    assert missing.detail == "orders has no trigger for UPDATE, these changes are not captured"
    assert findings["source column-added"].result == "warning"
    assert findings["guarantee"].detail == "none: a replica: connect to the primary"
