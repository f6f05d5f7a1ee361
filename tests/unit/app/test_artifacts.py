"""Which of the database servers on a machine is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.artifacts import installed_database

ALL = ("mariadbd", "mariadb-install-db", "my_print_defaults")


@pytest.mark.parametrize(
    ("programs", "used"),
    [
        ((), None),
        (ALL, "mariadbd"),
        (("mariadbd", "mysql_install_db", "my_print_defaults"), "mariadbd"),
        (("mariadbd", "mariadb-install-db"), None),
        (("mariadbd", "my_print_defaults"), None),
        (("mysqld",), "mysqld"),
        (("mariadbd", "mysqld"), None),
    ],
)
def test_a_server_on_the_path_is_used_only_with_all_that_it_needs(
    programs: tuple[str, ...], used: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in programs:
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed_database() == (tmp_path / used if used else None)
