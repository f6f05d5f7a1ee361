"""Child processes: their log and pid files, start, readiness and stop."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

POLL_INTERVAL_S = 0.05
#: The first port that the kernel gives to clients on a system without /proc.
FIRST_CLIENT_PORT = 49152
Self = TypeVar("Self", bound="LocalServer")  # typing.Self is not in Python 3.10


class ServerFailed(Exception):
    """A process did not start, ended, or did not get ready; the message has the end of its log."""


class LocalProcess:
    """A process with the files `<folder>/<name>.log` and `<folder>/<name>.pid`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        own_session: bool = True,
    ) -> None:
        """Define the process without starting it.

        `env` is added to the environment of this process. With `own_session` the process gets a
        session of its own, otherwise only a process group.
        """
        self.name = name
        self.command = list(command)
        self.folder = folder
        self.env = env
        self.cwd = cwd
        self.own_session = own_session
        self.log = folder / f"{name}.log"
        self.pid_file = folder / f"{name}.pid"
        self.log_start = 0
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the process that was started last, even if it has ended."""
        return self.child.pid if self.child else None

    @property
    def is_running(self) -> bool:
        """True if the process was started and has not ended."""
        return self.child is not None and self.child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, -N after signal N; None: the process is running or was never started."""
        return None if self.child is None else self.child.poll()

    def start(self) -> None:
        """Start the process. Raises ServerFailed if it is running already or cannot be executed."""
        self.require_stopped()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.log_start = log.tell()
            try:
                # At least a group of its own: Ctrl-C in the terminal must not reach the process.
                self.child = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.cwd,
                    env={**os.environ, **(self.env or {})},
                    start_new_session=self.own_session,
                    preexec_fn=None if self.own_session else os.setpgrp,
                )
            except OSError as error:
                raise ServerFailed(f"{self.name} cannot be executed: {error}") from error
        write_pid_file(self.pid_file, self.child.pid)

    def require_stopped(self) -> None:
        """Raise ServerFailed if the process is running already, even if another run started it."""
        running = self.pid if self.is_running else running_pid(self.pid_file)
        if running is not None:
            raise ServerFailed(
                f"{self.name} is running already (process {running}, {self.pid_file}): stop it, or use another folder"
            )

    def tail(self, lines: int = 40) -> str:
        """Return the last lines of the log since the last start."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def stop(self, timeout: float = 10) -> None:
        """Send SIGTERM, and SIGKILL after `timeout` seconds. Does nothing if it has ended."""
        if self.child is not None and self.is_running:
            signal_group(self.child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL, like a crash. Does nothing if the process has ended."""
        if self.child is None:
            return  # a pid file, if there is one, belongs to another run
        if self.is_running:
            signal_group(self.child.pid, signal.SIGKILL)
            self.child.wait()
        remove_pid_file(self.pid_file)
        self.child = None


class LocalServer:
    """The common part of Kafka and the databases: stop, kill and the `with` statement."""

    process: LocalProcess

    def start(self) -> None:
        """Start the server with its port and data folder, and return when it is ready."""
        raise NotImplementedError

    def stop(self) -> None:
        """Shut down the server. Does nothing if it is not running."""
        self.process.stop()

    def kill(self) -> None:
        """Kill the server, like a crash; the next `start` finds its data."""
        self.process.kill()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def wait_ready(process: LocalProcess, check: Callable[[], bool], within_s: float, event: str) -> None:
    """Wait until `check()` returns True; an exception from it means "not yet".

    `event` names in an error message what did not happen. Raises ServerFailed if the process ends,
    or after `within_s` seconds.
    """
    end = time.monotonic() + within_s
    last_error = ""
    while True:
        try:
            if check():
                return
        except Exception as error:
            last_error = f"; the last error was: {error!r}"
        if not process.is_running:
            raise server_failure(
                process, f"{process.name} ended with exit code {process.exit_code} before {event}{last_error}"
            )
        if time.monotonic() > end:
            raise server_failure(process, f"{process.name}: no {event} within {within_s:g} s{last_error}")
        time.sleep(POLL_INTERVAL_S)


def server_failure(process: LocalProcess, reason: str) -> ServerFailed:
    """Return an error with the end of the log of the process."""
    return ServerFailed(f"{reason}. The end of {process.log}:\n{process.tail()}")


def run_command(command: Sequence[str], folder: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command until it ends, and return its output. Raises ServerFailed."""
    completed = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if completed.returncode != 0:
        raise ServerFailed(f"{command[0]} ended with exit code {completed.returncode}: {completed.stdout[-3000:]}")
    return completed.stdout


def stop_leftovers(folder: Path, timeout: float = 10) -> list[str]:
    """Stop the processes of a killed run that have pid files in `folder`; return their names.

    SIGKILL follows SIGTERM after `timeout` seconds.
    """
    recorded = {path: running_pid(path) for path in sorted(folder.glob("*.pid"))}
    running = {path: pid for path, pid in recorded.items() if pid is not None}
    for pid in running.values():
        signal_group(pid, signal.SIGTERM)
    end = time.monotonic() + timeout
    for path in running:
        while running_pid(path) is not None and time.monotonic() < end:
            time.sleep(POLL_INTERVAL_S)
        while (survivor := running_pid(path)) is not None:
            signal_group(survivor, signal.SIGKILL)
            time.sleep(POLL_INTERVAL_S)
    for path in recorded:
        remove_pid_file(path)
    return [path.stem for path in running]


def write_pid_file(path: Path, pid: int) -> None:
    """Write a pid file, and a file with the start time: the kernel may reuse the pid."""
    start_time_file(path).write_text(f"{start_time(pid)}\n")
    new = path.with_suffix(".pid.new")
    new.write_text(f"{pid}\n")
    new.replace(path)


def running_pid(path: Path) -> int | None:
    """Return the pid in a pid file if exactly this process is still running."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid, started = int(path.read_text()), start_time_file(path).read_text().strip()
        if start_time(pid) == started:
            return pid
    return None


def remove_pid_file(path: Path) -> None:
    """Remove a pid file and its start time file."""
    path.unlink(missing_ok=True)
    start_time_file(path).unlink(missing_ok=True)


def start_time_file(path: Path) -> Path:
    """Return the path of the file with the start time of a pid file's process."""
    return path.with_suffix(".started")


def start_time(pid: int) -> str | None:
    """Return the start time of a running process; None if it has ended or is a zombie."""
    if not Path("/proc/self/stat").exists():
        return start_time_from_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before the bracket may contain spaces
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started


def start_time_from_ps(pid: int) -> str | None:
    """Do the same as `start_time` on a system without /proc."""
    listed = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = listed.stdout.strip().partition(" ")
    return None if not state or state[0] in "ZX" else started.strip()


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process group: a process that we started, and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def find_free_port(preferred: int | None = None) -> int:
    """Return a free port of 127.0.0.1: `preferred` if it is free, otherwise a random one."""
    if preferred is not None and is_port_free(preferred):
        return preferred
    # Below the kernel's range of client ports: otherwise the kernel may give the port of a stopped
    # server to a client that tries to connect to it, and the server could not start again.
    client_ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
    low = int(client_ports.read_text().split()[0]) if client_ports.exists() else FIRST_CLIENT_PORT
    candidates = range(low // 2, low)
    for port in random.sample(candidates, len(candidates)):
        if is_port_free(port):
            return port
    raise ServerFailed(f"no free port between {candidates.start} and {candidates.stop}: stop some servers")


def require_free_port(port: int) -> None:
    """Raise ServerFailed if the port is in use: another server must not be taken for ours."""
    if not is_port_free(port):
        raise ServerFailed(f"port {port} of 127.0.0.1 is in use: stop its process (ss -ltnp), or choose another port")


def is_port_free(port: int) -> bool:
    """Return True if a server can listen on this port now."""
    with socket.socket() as probe:
        # Like the servers: a port is free if only closed connections in TIME_WAIT use it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True
