"""Which of the database servers on a machine is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.artifacts import MARIADB, MYSQL, default_product, installed_mariadb, installed_mysql

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
