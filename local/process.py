"""A server as a child process: its log, its pid file, its start, its readiness and its end."""

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

SECONDS_BETWEEN_LOOKS = 0.05
Self = TypeVar("Self", bound="LocalServer")  # typing.Self is not in Python 3.10


class ServerFailed(Exception):
    """A local server did not start, died or stayed silent; the message holds the end of its log."""


class LocalProcess:
    """One process in a session of its own, or in ours, with `<folder>/<name>.log` and `<folder>/<name>.pid`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        own_session: bool = True,
    ) -> None:
        """Only remember what to run; `env` is added to this process's environment."""
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
        """The id of the process started last, dead or alive."""
        return self.child.pid if self.child else None

    @property
    def alive(self) -> bool:
        """Whether the process was started and has not ended."""
        return self.child is not None and self.child.poll() is None

    def start(self) -> None:
        """Start the process; raises ServerFailed when it runs already or cannot be run at all."""
        self.demand_stopped()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.log_start = log.tell()
            try:
                # A group of its own, at least: Ctrl-C in the terminal is ours to handle, not the server's.
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
                raise ServerFailed(f"{self.name} cannot be run: {error}") from error
        write_pid(self.pid_file, self.child.pid)

    def demand_stopped(self) -> None:
        """Raise ServerFailed when the process runs already, be it another run's."""
        running = self.pid if self.alive else recorded_pid(self.pid_file)
        if running is not None:
            raise ServerFailed(
                f"{self.name} is running already (process {running}, {self.pid_file}): stop it, or use another folder"
            )

    def tail(self, lines: int = 40) -> str:
        """Return the end of what the process wrote since it was started last."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def stop(self, timeout: float = 10) -> None:
        """Ask the process to end (SIGTERM), insist after `timeout` seconds (SIGKILL); does nothing twice."""
        if self.child is not None and self.alive:
            signal_group(self.child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would; does nothing twice."""
        if self.child is None:
            return  # the pid file, if any, is another run's
        if self.alive:
            signal_group(self.child.pid, signal.SIGKILL)
            self.child.wait()
        forget_pid(self.pid_file)
        self.child = None


class LocalServer:
    """What Kafka and MariaDB share: stopping, killing and `with`; `start` is their own."""

    process: LocalProcess

    def start(self) -> None:
        """Start the server on its port and data, and return when it is ready."""
        raise NotImplementedError

    def stop(self) -> None:
        """Shut the server down cleanly; does nothing when it is not running."""
        self.process.stop()

    def kill(self) -> None:
        """End the server as a crash would; the data stays for the next `start`."""
        self.process.kill()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def wait_ready(process: LocalProcess, check: Callable[[], bool], within: float, what: str) -> None:
    """Return once `check()` is true; an exception in it means "not yet".

    Args: `within` is in seconds; `what` names in an error message what was waited for.
    Raises ServerFailed when the process died or the time is over.
    """
    end = time.monotonic() + within
    seen = ""
    while True:
        try:
            if check():
                return
        except Exception as error:
            seen = f"; the last answer was: {error!r}"
        if not process.alive:
            code = process.child.returncode if process.child else None
            raise failure(process, f"{process.name} ended with {code} before {what}{seen}")
        if time.monotonic() > end:
            raise failure(process, f"{process.name}: no {what} within {within:g} s{seen}")
        time.sleep(SECONDS_BETWEEN_LOOKS)


def failure(process: LocalProcess, reason: str) -> ServerFailed:
    """Return an error with the end of the process's log."""
    return ServerFailed(f"{reason}. The end of {process.log}:\n{process.tail()}")


def run(command: Sequence[str], folder: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it said; raises ServerFailed."""
    done = subprocess.run(
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
    if done.returncode != 0:
        raise ServerFailed(f"{command[0]} ended with {done.returncode}: {done.stdout[-3000:]}")
    return done.stdout


def stop_leftovers(folder: Path, timeout: float = 10) -> list[str]:
    """Stop what a killed run left behind in `folder` (not below it); return the names of what was stopped.

    Args: `timeout` is the number of seconds from asking (SIGTERM) to insisting (SIGKILL).
    """
    left = {path: recorded_pid(path) for path in sorted(folder.glob("*.pid"))}
    running = {path: pid for path, pid in left.items() if pid is not None}
    for pid in running.values():
        signal_group(pid, signal.SIGTERM)
    end = time.monotonic() + timeout
    for path in running:
        while recorded_pid(path) is not None and time.monotonic() < end:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        while (pid := recorded_pid(path)) is not None:
            signal_group(pid, signal.SIGKILL)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    for path in left:
        forget_pid(path)
    return [path.stem for path in running]


def write_pid(path: Path, pid: int) -> None:
    """Note the process, and beside it when the kernel started it: a pid alone may belong to somebody else later."""
    started_file(path).write_text(f"{start_time(pid)}\n")
    new = path.with_suffix(".pid.new")
    new.write_text(f"{pid}\n")
    new.replace(path)


def recorded_pid(path: Path) -> int | None:
    """Return the pid in a pid file if that very process is still running."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid, started = int(path.read_text()), started_file(path).read_text().strip()
        if start_time(pid) == started:
            return pid
    return None


def forget_pid(path: Path) -> None:
    """Remove a pid file and what lies beside it."""
    path.unlink(missing_ok=True)
    started_file(path).unlink(missing_ok=True)


def started_file(path: Path) -> Path:
    """Where the start time of a pid file's process is kept."""
    return path.with_suffix(".started")


def start_time(pid: int) -> str | None:
    """Return the kernel's start time of a running process; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before the bracket may hold spaces
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process we started, and to its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def free_port(preferred: int | None = None) -> int:
    """Return a port of 127.0.0.1 nobody listens on: `preferred` if it is free, else a random one."""
    if preferred is not None and is_free(preferred):
        return preferred
    # Below the kernel's own range: a client that keeps connecting to a stopped server there may be given
    # the server's port as its own end, and the server could not start again.
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    below = range(low // 2, low)
    for port in random.sample(below, len(below)):
        if is_free(port):
            return port
    raise ServerFailed(f"no free port between {below.start} and {below.stop}: stop some servers")


def demand_port(port: int) -> None:
    """Raise ServerFailed when the port is taken: else a stranger's answer could pass for our server's."""
    if not is_free(port):
        raise ServerFailed(
            f"port {port} of 127.0.0.1 is taken: stop what listens there (ss -ltnp), or choose another port"
        )


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port now."""
    with socket.socket() as probe:
        # As the servers do: a port whose old connections only linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True
