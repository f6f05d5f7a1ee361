"""A process that has imported the libraries of Lately, and forks itself for each `python -m …` of a test.

The import of libraries takes half of the processor time of a short command. A fork does all the rest as
a new interpreter does: it has the environment, the working directory and the output that the test names,
and imports the product from there.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import json
import os
import runpy
import select
import signal
import socket
import sys

#: What workers, sources and commands import. None of it reads settings or starts threads while it is imported.
LIBRARIES = (
    "aiohttp.web", "aiokafka", "aiokafka.admin", "asyncio", "click", "faust.agents", "faust.app", "faust.cli.worker",
    "faust.livecheck", "faust.sensors", "faust.tables", "faust.transport.drivers.aiokafka",
    "faust.web.drivers.aiohttp", "jinja2", "jwt", "mode", "msgspec", "mysql.connector", "prometheus_client",
    "rocksdict", "uvloop", "yaml",
)  # fmt: skip
MAX_REQUEST_BYTES = 128 * 1024


def main() -> None:
    """Fork for each request on stdin, a socket, until its other end is closed."""
    for library in LIBRARIES:
        importlib.import_module(library)
    # Faust replaces its package in sys.modules by an object without the specification that `-m faust` needs.
    sys.modules["faust"].__spec__ = importlib.machinery.PathFinder.find_spec("faust")
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("a library started a thread, which forks would lack: remove the library from LIBRARIES")
    requests = socket.socket(fileno=os.dup(0))
    answers: dict[int, socket.socket] = {}
    wakeup, wakeup_end = os.pipe()
    os.set_blocking(wakeup_end, False)
    signal.set_wakeup_fd(wakeup_end)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and the tests end this process
    while True:
        readable, _, _ = select.select([requests, wakeup], [], [])
        if wakeup in readable:
            os.read(wakeup, 4096)
            report_ends(answers)
        if requests in readable:
            message, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 2)
            if not message:
                return
            log, answer = descriptors
            process = os.fork()
            if process == 0:
                signal.set_wakeup_fd(-1)
                for other in answers.values():
                    other.close()
                for descriptor in (requests.detach(), wakeup, wakeup_end, answer):
                    os.close(descriptor)
                run_module(json.loads(message), log)
                return
            os.close(log)
            answers[process] = socket.socket(fileno=answer)
            answers[process].send(str(process).encode())


def report_ends(answers: dict[int, socket.socket]) -> None:
    """Send the exit code of each child that has ended."""
    while answers:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process == 0:
            return
        with answers.pop(process) as answer, contextlib.suppress(OSError):
            answer.send(str(os.waitstatus_to_exitcode(status)).encode())


def run_module(request: dict, log: int) -> None:
    """Run a module in this process, in a session of its own, as the interpreter does for `python -m`."""
    os.setsid()
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    module, *arguments = request["arguments"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
