"""`make demo`: all of Lately on this machine, with a shop that places orders, until Ctrl-C.

Its state lies in .lately/demo, or in the folder given as an argument.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path

from app.settings import Settings
from domain.errors import LatelyError
from local import shop
from local.artifacts import DownloadFailed, MissingTool, resolve
from local.kafka import start_kafka
from local.mariadb import start_mariadb
from local.process import (
    LocalProcess,
    ServerFailed,
    forget_pid,
    free_port,
    recorded_pid,
    stop_leftovers,
    wait_ready,
    write_pid,
)
from source.setup import setup

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lately"

KAFKA_PORT, MYSQL_PORT, WEB_PORT = 9092, 3306, 6066
SECONDS_TO_START = 60
SECONDS_TO_STOP = 15


class Stop(Exception):
    """Somebody asked the demo to end."""


class Demo:
    """The servers and processes of the demo, in the order of their start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[LocalProcess] = []
        self.env: dict[str, str] = {}

    def start(self) -> None:
        """Start everything; what `LATELY_KAFKA` or `LATELY_MYSQL_HOST` points to is used instead of our own."""
        for name in stop_leftovers(self.folder):
            say(f"stopped {name}, left behind by an earlier run")
        self.start_servers()
        if "LATELY_WEB_PORT" not in os.environ:
            self.env["LATELY_WEB_PORT"] = str(free_port(WEB_PORT))
        if "LATELY_DATA_DIR" not in os.environ:
            self.env["LATELY_DATA_DIR"] = str(self.folder / "worker")
        self.set_up_shop()
        lately = [sys.executable, "-m", "app"]
        self.start_process("source", [*lately, "source"])
        worker = self.start_process("worker", [*lately, "worker", "-l", "info"])
        say("starting the worker …")
        wait_ready(worker, self.worker_is_ready, SECONDS_TO_START, "answer of /readyz")
        self.start_process("shop", [sys.executable, "-m", "local.shop"])

    def start_servers(self) -> None:
        """Start Kafka and MariaDB, unless the settings name others."""
        env = os.environ
        own_kafka, own_mysql = "LATELY_KAFKA" not in env, "LATELY_MYSQL_HOST" not in env
        if own_kafka or own_mysql:
            artifacts = resolve(STATE, say)
        if own_kafka:
            say("starting Kafka …")
            kafka = start_kafka(artifacts, self.folder, KAFKA_PORT)
            self.running.append(kafka.process)
            self.env["LATELY_KAFKA"] = kafka.address
        if own_mysql:
            say("starting MariaDB …")
            database = start_mariadb(artifacts, self.folder, MYSQL_PORT)
            self.running.append(database.process)
            self.env |= {
                "LATELY_MYSQL_HOST": database.host,
                "LATELY_MYSQL_PORT": str(database.port),
                "LATELY_MYSQL_USER": database.user,
                "LATELY_MYSQL_PASSWORD": database.password,
            }

    def set_up_shop(self) -> None:
        """Make the shop's table, and Lately's outbox beside it."""
        settings = Settings.from_env({**os.environ, **self.env})
        self.env["LATELY_MYSQL_HOST"] = settings.mysql_host
        self.env["LATELY_MYSQL_PORT"] = str(settings.mysql_port)
        self.env["LATELY_MYSQL_USER"] = settings.mysql_user
        self.env["LATELY_MYSQL_DATABASE"] = settings.mysql_database
        self.web = f"http://{settings.web_host}:{settings.web_port}"
        connection = shop.connect(
            settings.mysql_host, settings.mysql_port, settings.mysql_user, settings.mysql_password,
            settings.mysql_database,
        )  # fmt: skip
        shop.Shop(connection, users=1, seed=1).create_table()
        connection.close()
        setup(settings, "1d", say)

    def start_process(self, name: str, command: list[str]) -> LocalProcess:
        """Start one of Lately's processes with the settings of the demo."""
        process = LocalProcess(name, command, self.folder, env=self.env, cwd=ROOT)
        process.start()
        self.running.append(process)
        return process

    def database(self) -> str:
        """How to open the shop's database by hand."""
        host, port, user, name = (self.env[f"LATELY_MYSQL_{part}"] for part in ("HOST", "PORT", "USER", "DATABASE"))
        return f"mysql -h {host} -P {port} -u {user} {name}"

    def worker_is_ready(self) -> bool:
        """Whether the worker's tables are recovered."""
        return get(f"{self.web}/readyz")["status"] == "ok"

    def watch(self) -> None:
        """Print what the shop does until a process ends, which is an error."""
        shop_process = self.running[-1]
        with shop_process.log.open() as log:
            log.seek(shop_process.log_start)
            while True:
                for line in log:
                    say(f"  {line.rstrip()}")
                for process in self.running:
                    if not process.alive:
                        raise ServerFailed(how_it_ended(process))
                time.sleep(0.2)

    def stop(self) -> None:
        """Stop everything, last started first."""
        for process in reversed(self.running):
            process.stop(SECONDS_TO_STOP)


def main() -> int:
    """Run the demo until Ctrl-C; exit 0 then, 1 when something failed, 2 when a tool is missing or it runs already."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    os.chdir(ROOT)
    folder = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else STATE / "demo"
    demo, own_pid = Demo(folder), folder.with_name(f"{folder.name}.pid")
    other = recorded_pid(own_pid)
    if other is not None:
        print(f"demo: it is running already, as process {other}: stop that one first", file=sys.stderr)
        return 2
    try:
        Settings.from_env()
        shop.wishes(os.environ)
        folder.mkdir(parents=True, exist_ok=True)
        write_pid(own_pid, os.getpid())
        demo.start()
        say(WHERE_TO_LOOK.format(web=demo.web, database=demo.database(), logs=demo.folder))
        demo.watch()
    except Stop:
        return 0
    except LatelyError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return exc.exit_code
    except (MissingTool, shop.BadWish) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 2
    except (DownloadFailed, ServerFailed) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    finally:
        # A second Ctrl-C must not leave servers behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        forget_pid(own_pid)
        if demo.running:
            say("\nstopping …")
            demo.stop()
            say(f"all stopped; the data stays in {folder}")


WHERE_TO_LOOK = """
Lately is running.

  home page of a user   {web}/users/user-1
  the same as JSON      {web}/v1/users/user-1/purchases
  any other user        {web}/
  how a product sells   {web}/v1/products/Pebble%205
  ready, and counters   {web}/readyz  {web}/metrics
  the shop's database   {database}
  logs                  {logs}/*.log

Ctrl-C stops all of it. This is what the shop does:
"""


def how_it_ended(process: LocalProcess) -> str:
    """What became of a process that should be running; the end of its log where that can explain it."""
    code = process.child.returncode
    if code < 0:
        return f"{process.name} was killed by signal {-code}"
    return f"{process.name} ended with exit code {code}. The end of {process.log}:\n{process.tail()}"


def get(url: str) -> dict:
    """The JSON that `url` answers with; raises OSError for anything but 200."""
    with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http URL
        return json.load(answer)


def say(line: str) -> None:
    """Print one line at once, even into a pipe."""
    print(line, flush=True)


def _interrupt(*_: object) -> None:
    raise Stop


if __name__ == "__main__":
    sys.exit(main())
