"""Results of `lately source check`."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Finding:
    """Result of one check: `result` is ok, warning or failed; `fix` is the next step."""

    name: str
    result: str
    detail: str
    fix: str = ""
