"""One process at a time uses a folder, and a killed one does not keep the next one out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import EX_USAGE, FolderInUse
from app.folder_lock import lock_folder
from tests.kit.stack import ROOT

HOLD = """
import pathlib, sys
from app.folder_lock import lock_folder
lock = lock_folder(pathlib.Path(sys.argv[1]), "the worker", "stop it")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_use_is_refused_until_its_process_is_killed(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        for _ in range(2):
            with pytest.raises(FolderInUse) as caught:
                lock_folder(folder, "the worker", "stop it")
            assert str(caught.value) == f"{folder} is in use by the worker with process id {holder.pid}: stop it"
            assert caught.value.exit_code == EX_USAGE
        holder.kill()
    lock_folder(folder, "the worker", "stop it").release()


def test_a_released_folder_can_be_locked_again_and_locks_of_other_names_do_not_interfere(tmp_path: Path):
    first = lock_folder(tmp_path, "x", "y", "first.lock")
    with lock_folder(tmp_path, "x", "y", "second.lock"), pytest.raises(FolderInUse):
        lock_folder(tmp_path, "x", "y", "first.lock")
    first.release()
    lock_folder(tmp_path, "x", "y", "first.lock").release()


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        lock_folder(tmp_path / "file" / "folder", "x", "y")
