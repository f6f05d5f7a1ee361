"""`make demo`: Lately, its servers, and a shop that places orders, on this machine, until Ctrl-C.

The data is in .lately/demo (with DATABASE=mysql: .lately/demo-mysql), or in the folder that is the
first argument.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from app.settings import Settings
from domain.errors import LatelyError
from local import shop
from local.artifacts import MARIADB, MYSQL, default_product, resolve
from local.database import start_database
from local.downloads import DownloadFailed, MissingTool
from local.kafka import start_kafka
from local.process import (
    LocalProcess,
    ServerFailed,
    find_free_port,
    remove_pid_file,
    running_pid,
    stop_leftovers,
    wait_ready,
    write_pid_file,
)
from source.setup import setup

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lately"

KAFKA_PORT, MYSQL_PORT, WEB_PORT = 9092, 3306, 6066
PRODUCTS = {MARIADB: "MariaDB", MYSQL: "MySQL"}
#: The topics describe the orders of one database server.
FOLDERS = {MARIADB: "demo", MYSQL: "demo-mysql"}
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15


class StopRequested(Exception):
    """The demo received a signal to stop."""


class WrongDatabase(Exception):
    """DATABASE has an invalid value, or names another server than the data; the message says which."""


class Demo:
    """The servers and processes of the demo, in the order of their start."""

    def __init__(self, folder: Path, product: str) -> None:
        """Define a demo with its data in `folder`; `product` is the database server, MARIADB or MYSQL."""
        self.folder = folder
        self.product = product
        self.processes: list[LocalProcess] = []
        self.env: dict[str, str] = {}

    def start(self) -> None:
        """Start all servers and processes, except servers that the settings name."""
        for name in stop_leftovers(self.folder):
            report(f"stopped {name}, which an earlier run had left running")
        self.start_servers()
        if "LATELY_WEB_PORT" not in os.environ:
            self.env["LATELY_WEB_PORT"] = str(find_free_port(WEB_PORT))
        if "LATELY_DATA_DIR" not in os.environ:
            self.env["LATELY_DATA_DIR"] = str(self.folder / "worker")
        self.set_up_shop()
        lately = [sys.executable, "-m", "app"]
        self.start_process("source", [*lately, "source"])
        worker = self.start_process("worker", [*lately, "worker", "-l", "info"])
        report("starting the worker …")
        wait_ready(worker, self.worker_is_ready, START_TIMEOUT_S, "answer of /readyz")
        self.start_process("shop", [sys.executable, "-m", "local.shop"])

    def require_same_product(self) -> None:
        """Raise WrongDatabase if the folder has the data of the other database server.

        The topics in the folder describe the orders of that server.
        """
        for other in PRODUCTS:
            if other != self.product and (self.folder / other).exists():
                raise WrongDatabase(
                    f"{self.folder} contains data of {PRODUCTS[other]}: run `make demo DATABASE={other}`, or remove "
                    "the folder"
                )

    def start_servers(self) -> None:
        """Start Kafka, unless LATELY_KAFKA is set, and a database, unless LATELY_MYSQL_HOST is set."""
        env = os.environ
        starts_kafka, starts_mysql = "LATELY_KAFKA" not in env, "LATELY_MYSQL_HOST" not in env
        if starts_mysql:
            self.require_same_product()
        if starts_kafka or starts_mysql:
            artifacts = resolve(STATE, report, self.product)
        if starts_kafka:
            report("starting Kafka …")
            kafka = start_kafka(artifacts, self.folder, KAFKA_PORT)
            self.processes.append(kafka.process)
            self.env["LATELY_KAFKA"] = kafka.address
        if starts_mysql:
            report(f"starting {PRODUCTS[artifacts.product]} …")
            database = start_database(artifacts, self.folder, MYSQL_PORT)
            self.processes.append(database.process)
            self.env |= {
                "LATELY_MYSQL_HOST": database.host,
                "LATELY_MYSQL_PORT": str(database.port),
                "LATELY_MYSQL_USER": database.user,
                "LATELY_MYSQL_PASSWORD": database.password,
            }

    def set_up_shop(self) -> None:
        """Create the table of the shop and the outbox of Lately."""
        settings = Settings.from_env({**os.environ, **self.env})
        self.env["LATELY_MYSQL_HOST"] = settings.mysql_host
        self.env["LATELY_MYSQL_PORT"] = str(settings.mysql_port)
        self.env["LATELY_MYSQL_USER"] = settings.mysql_user
        self.env["LATELY_MYSQL_DATABASE"] = settings.mysql_database
        self.web = settings.worker_url
        connection = shop.connect(
            settings.mysql_host, settings.mysql_port, settings.mysql_user, settings.mysql_password,
            settings.mysql_database,
        )  # fmt: skip
        shop.Shop(connection, users=1, seed=1).create_table()
        connection.close()
        setup(settings, "1d", report)

    def start_process(self, name: str, command: list[str]) -> LocalProcess:
        """Start a process with the settings of the demo."""
        process = LocalProcess(name, command, self.folder, env=self.env, cwd=ROOT)
        process.start()
        self.processes.append(process)
        return process

    def database_command(self) -> str:
        """Return the command that opens the database of the shop."""
        host, port, user, name = (self.env[f"LATELY_MYSQL_{part}"] for part in ("HOST", "PORT", "USER", "DATABASE"))
        return f"mysql -h {host} -P {port} -u {user} {name}"

    def worker_is_ready(self) -> bool:
        """Return True if the tables of the worker are recovered."""
        return get_json(f"{self.web}/readyz")["status"] == "ok"

    def watch(self) -> NoReturn:
        """Print the log of the shop until a process ends. Raises ServerFailed then."""
        shop_process = self.processes[-1]
        with shop_process.log.open() as log:
            log.seek(shop_process.log_start)
            while True:
                for line in log:
                    report(f"  {line.rstrip()}")
                for process in self.processes:
                    if not process.is_running:
                        raise ServerFailed(describe_exit(process))
                time.sleep(0.2)

    def stop(self) -> None:
        """Stop all processes in the reverse order of their start."""
        for process in reversed(self.processes):
            process.stop(STOP_TIMEOUT_S)


def main() -> int:
    """Run the demo until Ctrl-C, and return the exit code.

    0: stopped by a signal. 1: a server failed. 2: a tool is missing, or the demo is running
    already.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    os.chdir(ROOT)
    try:
        product = read_product(os.environ)
    except WrongDatabase as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else STATE / FOLDERS[product]
    demo, own_pid = Demo(folder, product), folder.with_name(f"{folder.name}.pid")
    running = running_pid(own_pid)
    if running is not None:
        print(f"demo: it is running already, as process {running}: stop that process first", file=sys.stderr)
        return 2
    try:
        Settings.from_env()
        shop.read_shop_settings(os.environ)
        folder.mkdir(parents=True, exist_ok=True)
        write_pid_file(own_pid, os.getpid())
        demo.start()
        report(OVERVIEW.format(web=demo.web, database=demo.database_command(), logs=demo.folder))
        demo.watch()
    except StopRequested:
        return 0
    except LatelyError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return exc.exit_code
    except (MissingTool, WrongDatabase, shop.BadShopSetting) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 2
    except (DownloadFailed, ServerFailed) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    finally:
        # A second Ctrl-C must not leave servers running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        remove_pid_file(own_pid)
        if demo.processes:
            report("\nstopping all servers and processes …")
            demo.stop()
            report(f"all are stopped; the data remains in {folder}")


def read_product(env: Mapping[str, str]) -> str:
    """Return the database server that DATABASE names, or the default. Raises WrongDatabase."""
    product = env.get("DATABASE") or default_product()
    if product not in PRODUCTS:
        raise WrongDatabase(f"DATABASE: {product!r} is not one of {', '.join(PRODUCTS)}")
    return product


OVERVIEW = """
Lately is running.

  home page of a user   {web}/users/user-1
  its purchases (JSON)  {web}/v1/users/user-1/purchases
  search for a user     {web}/
  product totals (JSON) {web}/v1/products/Pebble%205
  readiness, metrics    {web}/readyz  {web}/metrics
  database of the shop  {database}
  logs                  {logs}/*.log

Press Ctrl-C to stop. The shop now places orders:
"""


def describe_exit(process: LocalProcess) -> str:
    """Describe how a process ended, with the end of its log unless a signal killed it."""
    code = process.exit_code
    if code is not None and code < 0:
        return f"{process.name} was killed by signal {-code}"
    return f"{process.name} ended with exit code {code}. The end of {process.log}:\n{process.tail()}"


def get_json(url: str) -> dict[str, object]:
    """Return the JSON document at `url`. Raises OSError for any status but 200."""
    with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own http URL
        content: dict[str, object] = json.load(response)
        return content


def report(line: str) -> None:
    """Print a line without buffering, even into a pipe."""
    print(line, flush=True)


def _interrupt(*_: object) -> None:
    raise StopRequested


if __name__ == "__main__":
    sys.exit(main())
