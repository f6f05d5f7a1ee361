"""Python processes that start in half the time: a template forks them; see tests.kit.template."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from local.process import LocalProcess, write_pid_file

ROOT = Path(__file__).resolve().parents[2]
#: Variables with these prefixes have no effect on an interpreter that runs already.
_START_VARIABLES = ("LD_", "PYTHON")


class PythonProcess(LocalProcess):
    """A LocalProcess that is forked if its command is `python -m …`, and executed otherwise."""

    def start(self) -> None:
        """Start the process. Raises ServerFailed if it is running already or cannot be executed."""
        env = self.env or {}
        if self.command[:2] != [sys.executable, "-m"] or any(name.startswith(_START_VARIABLES) for name in env):
            super().start()
            return
        self.require_stopped()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.log_start = log.tell()
            self.child = _template().fork(self.command[2:], {**os.environ, **env}, self.cwd or Path.cwd(), log.fileno())
        write_pid_file(self.pid_file, self.child.pid)


class ForkedChild:
    """What LocalProcess and tests use of subprocess.Popen, for a child of the template."""

    def __init__(self, arguments: Sequence[str], answers: socket.socket) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._answers = answers
        self.pid = self._receive(None)

    def __del__(self) -> None:
        self._answers.close()

    def poll(self) -> int | None:
        """The exit code, -N after signal N; None while the process runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self.returncode = self._receive(timeout)
            self._answers.close()
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _receive(self, timeout: float | None) -> int:
        readable, _, _ = select.select([self._answers], [], [], timeout)
        if not readable:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        message = self._answers.recv(64)
        assert message, "the template of processes has ended"
        return int(message)


class Template:
    """The running template."""

    def __init__(self) -> None:
        self._requests, theirs = _socket_pair()
        with theirs:
            self._process = subprocess.Popen([sys.executable, "-m", "tests.kit.template"], cwd=ROOT, stdin=theirs)

    def fork(self, arguments: Sequence[str], env: Mapping[str, str], cwd: Path, log: int) -> ForkedChild:
        """Run `python -m <arguments>`, with its output appended to an open file."""
        request = json.dumps({"arguments": arguments, "env": dict(env), "cwd": str(cwd)}).encode()
        answers, theirs = _socket_pair()
        with theirs:
            socket.send_fds(self._requests, [request], [log, theirs.fileno()])
        return ForkedChild(arguments, answers)

    def close(self) -> None:
        """End the template; what it has forked goes on."""
        self._requests.close()
        self._process.wait()


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets that keep messages apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@cache
def _template() -> Template:
    return Template()


def close_template() -> None:
    """End the template of this process, if there is one."""
    if _template.cache_info().currsize:
        _template().close()
        _template.cache_clear()
