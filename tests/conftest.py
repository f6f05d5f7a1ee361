"""Real servers for the tests, started once; the end of every log when a test fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.stack import ROOT, Servers, Stack, scrubbed

_GIVEN = {name: os.environ[name] for name in os.environ if name.startswith("LATELY_")}
_LOGS = pytest.StashKey[list[Path]]()
_TAIL_LINES = 40

scrubbed()


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers of this run keep their data and logs."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def artifacts():
    """The programs of the local servers."""
    from local.artifacts import resolve

    return resolve(ROOT / ".lately")


@pytest.fixture(scope="session")
def kafka(server_folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a real broker: LATELY_KAFKA, or one of our own."""
    if "LATELY_KAFKA" in _GIVEN:
        yield _GIVEN["LATELY_KAFKA"]
        return
    from local.kafka import start_kafka

    with start_kafka(request.getfixturevalue("artifacts"), server_folder) as broker:
        yield broker.address


@pytest.fixture(scope="session")
def database(server_folder: Path, request: pytest.FixtureRequest) -> Iterator[dict]:
    """How to reach a real MySQL or MariaDB: LATELY_MYSQL_*, or one of our own."""
    if "LATELY_MYSQL_HOST" in _GIVEN:
        yield {
            "host": _GIVEN["LATELY_MYSQL_HOST"],
            "port": int(_GIVEN.get("LATELY_MYSQL_PORT", 3306)),
            "user": _GIVEN.get("LATELY_MYSQL_USER", "root"),
            "password": _GIVEN.get("LATELY_MYSQL_PASSWORD", ""),
        }
        return
    from local.mariadb import start_mariadb

    with start_mariadb(request.getfixturevalue("artifacts"), server_folder) as server:
        yield {"host": server.host, "port": server.port, "user": server.user, "password": server.password}


@pytest.fixture(scope="session")
def servers(kafka: str, database: dict) -> Servers:
    """Both servers."""
    return Servers(kafka, **database)


@pytest.fixture(scope="session")
def unpacked_servers(kafka: str, server_folder: Path) -> Iterator[Servers]:
    """Both servers, the database being the one that Maven brings, also where another one is on the PATH."""
    from local import artifacts
    from local.mariadb import start_mariadb

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "installed_database", lambda: None)
        unpacked = artifacts.resolve(ROOT / ".lately")
    with start_mariadb(unpacked, server_folder / "unpacked") as server:
        yield Servers(kafka, server.host, server.port, server.user, server.password)


@pytest.fixture
def stack(servers: Servers, tmp_path: Path) -> Iterator[Stack]:
    """A shop of its own for one test."""
    with Stack(servers, tmp_path) as one:
        yield one


@pytest.fixture(autouse=True)
def _logs_of_failures(request: pytest.FixtureRequest) -> None:
    if "tmp_path" in request.fixturenames:
        folders = [request.getfixturevalue("tmp_path")]
        if "servers" in request.fixturenames:
            folders.append(request.getfixturevalue("server_folder"))
        request.node.stash[_LOGS] = folders


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    if report.failed:
        for folder in item.stash.get(_LOGS, []):
            for log in sorted(folder.glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
                report.sections.append((f"end of {log.name}", "\n".join(lines)))
    return report


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser; without it the tests of the pages are skipped, and fail where CI=true."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        reason = "no chromium on the PATH: install it to test the pages"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found
