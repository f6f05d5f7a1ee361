"""Which of the database servers on a machine is used."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from local.artifacts import MARIADB, MYSQL, default_product, installed_mariadb, installed_mysql
from local.downloads import MissingTool, fetch_mariadb, fetch_mysql, fetch_once
from local.process import start_time_from_ps

ALL = ("mariadbd", "mariadb-install-db", "my_print_defaults")
MYSQLD, MARIADB_MYSQLD = "Ver 9.7.0 for Linux on x86_64", "Ver 11.4.5-MariaDB for Linux on x86_64"


@pytest.mark.parametrize(
    ("programs", "is_used"),
    [
        ((), False),
        (ALL, True),
        (("mariadbd", "mysql_install_db", "my_print_defaults"), True),
        (("mariadbd", "mariadb-install-db"), False),
        (("mariadbd", "my_print_defaults"), False),
        (("mysqld",), False),
    ],
)
def test_a_mariadb_on_the_path_is_used_only_with_all_that_it_needs(
    programs: tuple[str, ...], is_used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in programs:
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed_mariadb() == (tmp_path / "mariadbd" if is_used else None)


@pytest.mark.parametrize(
    ("mariadb", "version", "is_used", "product"),
    [
        ((), None, False, MARIADB),
        ((), MYSQLD, True, MYSQL),
        (ALL, MYSQLD, True, MARIADB),
        ((), MARIADB_MYSQLD, False, MARIADB),
        (("mariadbd",), MARIADB_MYSQLD, False, MARIADB),
    ],
)
def test_a_mysqld_on_the_path_is_used_unless_it_is_mariadb_under_its_old_name(
    mariadb: tuple[str, ...], version: str | None, is_used: bool, product: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    for name in mariadb:
        (tmp_path / name).touch(0o755)
    mysqld = tmp_path / "mysqld"
    if version is not None:
        mysqld.write_text(f"#!/bin/sh\necho 'mysqld  {version}'\n")
        mysqld.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed_mysql() == (mysqld if is_used else None)
    assert default_product() == product


def test_a_machine_without_a_mariadb_to_download_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(MissingTool, match="no MariaDB to download for Linux on aarch64: install mariadbd or mysqld"):
        fetch_mariadb(tmp_path, "11.4.5", print)


def test_a_machine_without_apt_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "basename", "dirname", "mkdir"):
        (programs / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(MissingTool, match="cannot be downloaded without apt-get: install MySQL"):
        fetch_mysql(tmp_path / "servers", print)


def test_a_download_that_fails_leaves_nothing_and_is_repeated(tmp_path: Path):
    def fail(new: Path) -> None:
        (new / "half").touch()
        raise OSError

    folder = tmp_path / "servers" / "kafka-1"
    with pytest.raises(OSError):  # noqa: PT011 - any
        fetch_once(folder, fail, print)
    assert [path.name for path in folder.parent.iterdir()] == ["lock"]
    assert fetch_once(folder, lambda new: (new / "whole").touch(), print) == folder
    assert fetch_once(folder, fail, print) == folder
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_without_proc_the_start_time_of_a_process_comes_from_ps():
    with subprocess.Popen(["sleep", "60"]) as process:
        started = start_time_from_ps(process.pid)
        assert started
        assert start_time_from_ps(process.pid) == started
        process.kill()
    assert start_time_from_ps(process.pid) is None
