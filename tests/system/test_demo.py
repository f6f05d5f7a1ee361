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

from local.artifacts import MARIADB, MYSQL
from local.process import LocalProcess, running_pid
from local.shop import connect
from tests.kit.eventually import eventually
from tests.kit.stack import PYTHON, ROOT, Stack


def demo(folder: Path, output: Path, product: str) -> LocalProcess:
    """Start the demo with its state in `folder`, and return once it says where to look."""
    env = {"SHOP_RATE": "20", "DATABASE": product}
    process = LocalProcess("the-demo", [PYTHON, "-m", "local.demo", str(folder)], output, env=env, cwd=ROOT)
    process.start()

    def running() -> None:
        assert process.is_running, process.tail()
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


def order(process: LocalProcess) -> None:
    """Buy an Own Phone as test-user, over the database that the demo printed: the shop never cancels that."""
    host, port, user, database = re.search(
        r"mysql -h (\S+) -P (\d+) -u (\S+) (\S+)", process.tail(1_000)
    ).groups()  # fmt: skip
    with closing(connect(host, int(port), user, "", database)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(
            "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at)"
            " VALUES ('own-1', 'Own Phone', 'test-user', '1.00', NOW())"
        )
        connection.commit()


def shown(process: LocalProcess) -> bool:
    """Whether one of the last purchases of the demo's shop is on the home page of its user."""
    bought = re.findall(r"(user-\d+) buys ([^,\n]+)", process.tail(20))
    return any(product.strip() in page(process, user) for user, product in bought)


@pytest.mark.group("demo")  # demos that start at the same time could choose the same ports
@pytest.mark.cost(22)
@pytest.mark.parametrize(
    ("folder", "product"),
    [
        ("a folder, with spaces", MARIADB),
        pytest.param("demo", MARIADB, marks=pytest.mark.slow),
        pytest.param("a folder, with spaces", MYSQL, marks=pytest.mark.slow),
    ],
)
def test_the_demo_shows_purchases_stops_completely_and_remembers_them(
    tmp_path: Path, artifacts, folder: str, product: str
):
    first = demo(tmp_path / folder, tmp_path, product)
    try:
        eventually(lambda: shown(first), within=20)
        order(first)
        eventually(lambda: "Own Phone" in page(first, "test-user"), within=20)
        children = [path for path in (tmp_path / folder).glob("*.pid") if running_pid(path)]
        assert {path.stem for path in children} == {"kafka", product, "source", "worker", "shop"}
        again = subprocess.run([PYTHON, "-m", "local.demo", str(tmp_path / folder)], cwd=ROOT, capture_output=True)
        assert (again.returncode, b"it is running already" in again.stderr) == (2, True)
        assert "ERROR" not in first.tail(1_000)
        assert "NotLeader" not in first.tail(1_000)
    finally:
        code = interrupt(first)
    assert code == 0, first.tail()
    assert [path for path in (tmp_path / folder).glob("*.pid") if running_pid(path)] == []

    second = demo(tmp_path / folder, tmp_path, product)
    try:
        assert "Own Phone" in page(second, "test-user")
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
    worker.stop()  # kill -9 would leave what honcho has started


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"SHOP_RATE": "0"}, "demo: SHOP_RATE: '0' is not a number from 0.01"),
        ({"DATABASE": "oracle"}, "demo: DATABASE: 'oracle' is not one of mariadb, mysql"),
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
