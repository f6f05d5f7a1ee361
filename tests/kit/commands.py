"""Commands that tests start, and the ones that they run to their end."""

from __future__ import annotations

import json

from local.process import LocalProcess
from tests.kit.python_process import PythonProcess
from tests.kit.stack import PYTHON, ROOT, Stack, Worker

FAUST_WORKER = [PYTHON, "-m", "faust", "-A", "app", "worker", "-l", "info"]
LATELY_WORKER = [PYTHON, "-m", "app", "worker", "-l", "info"]
#: A worker with the faults that its environment asks for.
FAULTY_WORKER = [PYTHON, "-m", "faust", "-A", "tests.kit.faulty_worker", "worker", "-l", "info"]


def run_to_end(stack: Stack, command: list[str], **env: str) -> tuple[int, str]:
    """Run a command that ends by itself, in a new interpreter; its exit code and the end of its output."""
    process = LocalProcess(f"command-{len(stack.processes)}", command, stack.folder, env={**stack.env, **env}, cwd=ROOT)
    stack.processes.append(process)
    process.start()
    return process.child.wait(60), process.tail()


def start_lately(stack: Stack, *words: str, **env: str) -> LocalProcess:
    """Start `lately …` and leave it running."""
    process = PythonProcess(f"lately-{words[0]}-{len(stack.processes)}", [PYTHON, "-m", "app", *words], stack.folder,
                           env={**stack.env, **env}, cwd=ROOT)  # fmt: skip
    stack.processes.append(process)
    process.start()
    return process


def verify(stack: Stack, worker: Worker, *words: str) -> tuple[int, list[dict], dict]:
    """Exit code, differences and outcome of `lately verify --json`."""
    process = stack.lately("verify", "--json", "--worker", f"http://127.0.0.1:{worker.port}", *words)
    lines = process.tail(10_000).splitlines()
    code = process.child.returncode
    assert code in (0, 3), lines
    documents = [json.loads(line) for line in lines if line.startswith("{")]
    return code, documents[:-1], documents[-1]


def erase_user(stack: Stack, worker: Worker, user: str, *words: str) -> tuple[int, str]:
    """Exit code and last line of `lately users erase`."""
    process = stack.lately("users", "erase", user, "--worker", f"http://127.0.0.1:{worker.port}", *words)
    return process.child.returncode, process.tail(1)


def prove_erasure(stack: Stack, worker: Worker, user: str, *words: str) -> tuple[int, dict[str, dict]]:
    """Exit code of `lately users erase --proof`, and its findings by place, without the name of the stack."""
    code, report = erase_user(stack, worker, user, "--proof", "--json", *words)
    return code, {place["name"].replace(f"{stack.name}-", ""): place for place in json.loads(report)["places"]}
