"""Servers and shops that all tests of a run share, the order of the tests, and what a run leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer

from local.artifacts import MARIADB, MARIADB_VERSION, MYSQL, Artifacts, resolve
from local.database import start_database
from local.database_server import DatabaseServer
from local.downloads import DownloadFailed, MissingTool
from local.kafka import start_kafka
from tests.kit import shared
from tests.kit.python_process import close_template
from tests.kit.scheduler import UnitScheduling, arrange
from tests.kit.stack import PARTITIONS, ROOT, Servers, Stack, remove_settings

#: The variables of whoever runs the tests: servers of their own, for example.
SETTINGS = {name: os.environ[name] for name in os.environ if name.startswith("LATELY_")}
#: Names a database of whoever runs the tests, on which all of them run.
OWN_DATABASE = "LATELY_MYSQL_HOST"
_LOG_FOLDERS = pytest.StashKey[list[Path]]()
_TAIL_LINES = 40
#: The folders in which programs leave files on purpose.
_CACHES = {".hypothesis", ".lately", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
_FILES = pytest.StashKey[set[Path]]()

os.environ.setdefault(shared.RUN_VARIABLE, uuid.uuid4().hex)
# Otherwise each of some thousand processes compiles all modules that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
remove_settings()


# -- servers


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of this run have in common."""
    return shared.run_folder(tmp_path_factory)


@pytest.fixture(scope="session")
def artifacts() -> Artifacts:
    """The programs of Kafka and MariaDB."""
    return resolve(ROOT / ".lately")


@pytest.fixture(scope="session")
def kafka(run_folder: Path, request: pytest.FixtureRequest) -> str:
    """The address of a real broker: LATELY_KAFKA, or the one of this run."""
    if "LATELY_KAFKA" in SETTINGS:
        return SETTINGS["LATELY_KAFKA"]

    def start(folder: Path) -> dict:
        broker = start_kafka(request.getfixturevalue("artifacts"), folder)
        shared.detach(broker.process)
        return {"address": broker.address}

    return shared.start_once(run_folder, "kafka", start)["address"]


@pytest.fixture(scope="session")
def database_product(request: pytest.FixtureRequest) -> str:
    """The product of the database server: MariaDB, or with the mark `both_databases` each of them in turn."""
    return request.param


@pytest.fixture(scope="session")
def database_artifacts(database_product: str, run_folder: Path, request: pytest.FixtureRequest) -> Artifacts:
    """The programs of the database server; without a MySQL the tests on it are skipped, and fail where CI=true."""
    if database_product == MARIADB:
        return request.getfixturevalue("artifacts")
    reason = shared.start_once(run_folder, "mysql-programs", lambda _: {"missing": _fetch_mysql()})["missing"]
    if reason is None:
        return resolve(ROOT / ".lately", product=MYSQL)
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _fetch_mysql() -> str | None:
    """The reason why there is no MySQL on this machine, or None."""
    try:
        resolve(ROOT / ".lately", product=MYSQL)
    except (MissingTool, DownloadFailed) as exc:
        return str(exc)
    return None


@pytest.fixture(scope="session")
def database(database_product: str, run_folder: Path, request: pytest.FixtureRequest) -> dict:
    """How to reach a real MySQL or MariaDB: LATELY_MYSQL_*, or the one of this run."""
    if OWN_DATABASE in SETTINGS:
        return {
            "host": SETTINGS[OWN_DATABASE],
            "port": int(SETTINGS.get("LATELY_MYSQL_PORT", 3306)),
            "user": SETTINGS.get("LATELY_MYSQL_USER", "root"),
            "password": SETTINGS.get("LATELY_MYSQL_PASSWORD", ""),
        }
    return _start_database(request, run_folder, database_product)


def _start_database(request: pytest.FixtureRequest, run: Path, name: str, *options: str) -> dict:
    artifacts = request.getfixturevalue("database_artifacts")

    def start(folder: Path) -> dict:
        server = start_database(artifacts, folder, None, *options)
        shared.detach(server.process)
        return {"host": server.host, "port": server.port, "user": server.user, "password": server.password}

    return shared.start_once(run, name, start)


@pytest.fixture(scope="session")
def servers(kafka: str, database: dict) -> Servers:
    """Both servers."""
    return Servers(kafka, **database)


@pytest.fixture(scope="session")
def watermark_servers(
    kafka: str, database: dict, database_product: str, run_folder: Path, request: pytest.FixtureRequest
) -> Servers:
    """Both servers; no test outside the group `watermark` has transactions on this database.

    A watermark waits for every transaction of the server, and many readers of the list of transactions disturb each
    other.
    """
    if OWN_DATABASE in SETTINGS:
        return Servers(kafka, **database)
    return Servers(kafka, **_start_database(request, run_folder, f"{database_product}-watermark"))


@pytest.fixture(scope="session")
def privileges_servers(database_product: str, run_folder: Path, request: pytest.FixtureRequest) -> Servers:
    """A database server with a binary log, whose global variables the group `privileges` changes; no Kafka."""
    options = ("--log-bin", "--sync-binlog=0") if database_product == MARIADB else ()
    address = _start_database(request, run_folder, f"{database_product}-privileges", *options)
    return Servers("127.0.0.1:1", **address)


@pytest.fixture
def partitions(request: pytest.FixtureRequest) -> int:
    """How many partitions the topics of a test's stack have: the mark `partitions`, or the default of a stack."""
    mark = request.node.get_closest_marker("partitions")
    return PARTITIONS if mark is None else mark.args[0]


@pytest.fixture
def watermark_stack(watermark_servers: Servers, tmp_path: Path, partitions: int) -> Iterator[Stack]:
    """A stack of its own for one test of the group `watermark`."""
    with Stack(watermark_servers, tmp_path, partitions=partitions) as stack:
        yield stack


@pytest.fixture
def own_database(database_artifacts: Artifacts, kafka: str, tmp_path: Path) -> Iterator[tuple[DatabaseServer, Stack]]:
    """A database server that a test may break, and a shop on it."""
    with start_database(database_artifacts, tmp_path / "own") as server:
        with Stack(Servers(kafka, server.host, server.port, server.user, server.password), tmp_path) as stack:
            yield server, stack


@pytest.fixture
def stack(servers: Servers, tmp_path: Path, partitions: int) -> Iterator[Stack]:
    """A shop of its own for one test."""
    with Stack(servers, tmp_path, partitions=partitions) as stack:
        yield stack


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser; without it the tests of the pages are skipped, and fail where CI=true."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        reason = "no chromium on the PATH: install it to test the pages"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


# -- the database servers and the order of the tests


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the mark `both_databases` on MariaDB and on MySQL, and with `mysql_only` on MySQL."""
    if "database_product" not in metafunc.fixturenames:
        return
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    runs_on_one = OWN_DATABASE in SETTINGS or MARIADB_VERSION in os.environ
    if "mysql_only" in marks:
        products = [MYSQL]
    elif "both_databases" in marks and "one_database" not in marks and not runs_on_one:
        slow = {product for mark in metafunc.definition.iter_markers("slow_on") for product in mark.args}
        products = [
            pytest.param(product, marks=pytest.mark.slow) if product in slow else product
            for product in (MARIADB, MYSQL)
        ]
    else:
        # Named as well, so that the tests on MariaDB of a module have their fixtures in common.
        products = [pytest.param(MARIADB, id=pytest.HIDDEN_PARAM)]
    metafunc.parametrize("database_product", products, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In each of several processes, arrange the tests in the same way."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        arrange(items, config._tmp_path_factory.getbasetemp().parent)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> UnitScheduling:
    """In the process that shares the tests between the others, use our own scheduler."""
    return UnitScheduling(config, log, config._tmp_path_factory.getbasetemp())


# -- what a failure shows, and what a run leaves behind


@pytest.fixture(autouse=True)
def _logs_of_failures(request: pytest.FixtureRequest) -> None:
    folders = [request.getfixturevalue("tmp_path")] if "tmp_path" in request.fixturenames else []
    if "servers" in request.fixturenames:
        folders += (request.getfixturevalue("run_folder") / shared.FOLDER).glob("*/")
    request.node.stash[_LOG_FOLDERS] = folders


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    if report.failed:
        for folder in item.stash.get(_LOG_FOLDERS, []):
            for log in sorted(folder.glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
                report.sections.append((f"end of {log.name}", "\n".join(lines)))
    return report


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what lies in the working tree; SIGTERM ends a run as orderly as Ctrl-C does."""
    session.config.stash[_FILES] = _files()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the shared services, and fail where a test has left a process or a file behind."""
    close_template()
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    shared.kill_shared(session.config._tmp_path_factory.getbasetemp())
    left = [f"process {process}: {command}" for process, command in shared.kill_processes_of_run().items()]
    left += [f"file {path}" for path in sorted(_files() - session.config.stash[_FILES])]
    if left and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line("\nLeft behind by the tests:\n" + "\n".join(left), red=True)


def _files() -> set[Path]:
    """The top of the working tree and of `.lately`, without caches and the programs of the servers."""
    paths = {path for folder in (ROOT, ROOT / ".lately") if folder.exists() for path in folder.iterdir()}
    return paths - {ROOT / name for name in _CACHES} - {ROOT / ".lately" / "servers"}
