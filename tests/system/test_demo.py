"""The demo and the Procfile: everything starts with one command and is gone after Ctrl-C."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from local.process import LocalProcess, recorded_pid
from tests.eventually import eventually
from tests.stack import PYTHON, ROOT, Stack


def demo(folder: Path, output: Path) -> LocalProcess:
    """Start the demo with its state in `folder`, and return once it says where to look."""
    process = LocalProcess(
        "the-demo", [PYTHON, "-m", "local.demo", str(folder)], output, env={"SHOP_RATE": "20"}, cwd=ROOT
    )
    process.start()

    def running() -> None:
        assert process.alive, process.tail()
        assert "Lately is running" in process.tail(1_000)

    eventually(running, within=90)
    return process


def interrupt(process: LocalProcess) -> int:
    """Ctrl-C, and the exit code."""
    os.kill(process.pid, signal.SIGINT)
    return process.child.wait(60)


def page(process: LocalProcess, user: str) -> str:
    """The home page of a user, at the address that the demo printed."""
    address = re.search(r"home page of a user +(\S+)/users/", process.tail(1_000))[1]
    with closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)) as connection:
        connection.request("GET", f"/users/{user}")
        return connection.getresponse().read().decode()


@pytest.mark.parametrize("folder", ["demo", "a folder, with spaces"])
def test_the_demo_shows_purchases_stops_completely_and_remembers_them(tmp_path: Path, artifacts, folder: str):
    first = demo(tmp_path / folder, tmp_path)
    try:
        buyer = eventually(lambda: re.search(r"(user-\d+) buys ([^,\n]+)", first.tail(1_000)) or False)
        user, product = buyer[1], buyer[2].strip()
        eventually(lambda: product in page(first, user), within=20)
        children = [path for path in (tmp_path / folder).glob("*.pid") if recorded_pid(path)]
        assert {path.stem for path in children} == {"kafka", "mariadb", "source", "worker", "shop"}
        again = subprocess.run([PYTHON, "-m", "local.demo", str(tmp_path / folder)], cwd=ROOT, capture_output=True)
        assert (again.returncode, b"it is running already" in again.stderr) == (2, True)
    finally:
        code = interrupt(first)
    assert code == 0, first.tail()
    assert [path for path in (tmp_path / folder).glob("*.pid") if recorded_pid(path)] == []

    second = demo(tmp_path / folder, tmp_path)
    try:
        assert product in page(second, user)
    finally:
        assert interrupt(second) == 0


def test_the_procfile_runs_source_and_worker(stack: Stack):
    stack.create_orders()
    stack.setup()
    worker = stack.worker(command=[sys.executable, "-m", "honcho", "start"])
    worker.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    assert shutil.which("lately", path=worker.env["PATH"]), "the package is installed beside its Python"
    worker.start().wait_ready()
    stack.insert(("o1", "Phone", "ann", "19.90", "2026-01-31", "card"))
    eventually(lambda: len(worker.purchases("ann")) == 1)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"SHOP_RATE": "0"}, "demo: SHOP_RATE: '0' is not a number from 0.01"),
        ({"SHOP_USERS": "x"}, "demo: SHOP_USERS: 'x' is not a number from 1"),
        ({"LATELY_WEBPORT": "1"}, "demo: unknown setting LATELY_WEBPORT; did you mean LATELY_WEB_PORT?"),
    ],
)
def test_the_demo_refuses_wrong_settings_before_it_starts_anything(tmp_path: Path, env: dict, message: str):
    process = LocalProcess(
        "the-demo", [PYTHON, "-m", "local.demo", str(tmp_path / "demo")], tmp_path, env=env, cwd=ROOT
    )
    process.start()
    assert (process.child.wait(30), process.tail()) == (2, message)
    process.stop()
