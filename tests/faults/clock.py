"""A wall clock that a test can put forward and back while the process runs; the monotonic clocks go on as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import libfaketime

from tests.faults.disk import unavailable

LIBRARY = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
HOUR = 3600


class Clock:
    """The wall clock of the processes that run with `env`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.put(-HOUR)
        told = [sys.executable, "-c", "import time; print(time.time())"]
        other = float(subprocess.run(told, env=self.env, capture_output=True, check=True).stdout)
        own = float(subprocess.run(told, env={}, capture_output=True, check=True).stdout)
        if not HOUR - 60 < own - other < HOUR + 60:
            unavailable("libfaketime does not change the clock of a Python process here")
        self.put(0)

    def put(self, seconds: float) -> None:
        """Let the clock be so many seconds ahead of the true one, or behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.replace(self._file)
