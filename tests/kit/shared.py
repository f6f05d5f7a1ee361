"""What all processes of a test run share: started by the first that needs it, ended with the run.

pytest-xdist runs the tests in several processes. Each service that they share has a folder below the
temporary folder of the run, with a lock, the address of the service, its logs and its pid files.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

from local.process import LocalProcess

FOLDER = "shared"
#: Inherited by every process that a test starts, however many processes lie between.
RUN_VARIABLE = "TEST_RUN_ID"


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder that all processes of the run have in common."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def start_once(run: Path, name: str, start: Callable[[Path], dict]) -> dict:
    """The address of a shared service: what `start` returned in the first process that needed the service.

    `start` gets the folder of the service, and leaves its processes running when it returns.
    Raises RuntimeError when it failed in another process.
    """
    folder = run / FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    address, failure = folder / "address.json", folder / "failure"
    with FileLock(folder / "lock"):
        if failure.exists():
            raise RuntimeError(f"{name} could not be started: {failure.read_text()}")
        if not address.exists():
            try:
                address.write_text(json.dumps(start(folder)))
            except BaseException as exc:
                failure.write_text(repr(exc))
                raise
        return json.loads(address.read_text())


def detach(process: LocalProcess) -> None:
    """Let a process outlive this one; `kill_shared` ends it."""
    process.child.returncode = 0  # else Popen complains about a child that is still running
    process.child = None


def kill_shared(run: Path) -> None:
    """End all shared services; nobody needs their data any more."""
    for pid_file in (run / FOLDER).rglob("*.pid"):
        process = int(pid_file.read_text())
        if _is_of_run(process):
            os.killpg(process, signal.SIGKILL)
            _wait_for_end(process)


def kill_processes_of_run() -> dict[int, str]:
    """End every process of this run but this one; their ids, command lines and outputs."""
    running = {}
    for folder in Path("/proc").glob("[0-9]*"):
        process = int(folder.name)
        if process != os.getpid() and _is_of_run(process):
            with suppress(OSError):  # it may end by itself meanwhile
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                # A process that a template has forked has the command line of the template.
                running[process] = f"{command}, output: {os.readlink(folder / 'fd' / '1')}"
                os.kill(process, signal.SIGKILL)
    return running


def _is_of_run(process: int) -> bool:
    """Whether this run has started a process: it has inherited the id of the run, and is no zombie."""
    try:
        environment = Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return False
    return f"{RUN_VARIABLE}={os.environ[RUN_VARIABLE]}".encode() in environment.split(b"\0")


def _wait_for_end(process: int) -> None:
    """Wait until a killed process is gone; it may be a child of a process that has ended before."""
    while _is_of_run(process):
        with suppress(ChildProcessError):
            os.waitpid(process, os.WNOHANG)
        time.sleep(0.01)
