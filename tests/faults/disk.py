"""A disk of a few MiB that is really full when it is full, without root: a tmpfs in a user's own mount namespace."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

BLOCK = bytes(64 * 1024)


class SmallDisk:
    """While it is entered, `path` is a folder on a file system of `mib` MiB, for every process of the same user.

    It lives as long as a process that holds the namespace, and is reached through that one's /proc/<pid>/root.
    """

    def __init__(self, folder: Path, mib: int) -> None:
        self._folder = folder.absolute()
        self._mib = mib

    def __enter__(self) -> SmallDisk:
        self._folder.mkdir(parents=True, exist_ok=True)
        mount = f'mount -t tmpfs -o size={self._mib}m tmpfs "$0" && echo ready && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(self._folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        said = self._holder.stdout.readline().decode().strip()
        if said != "ready":
            self.__exit__()
            unavailable(f"no file system of one's own without root here ({said}): user namespaces are off")
        self.path = Path(f"/proc/{self._holder.pid}/root{self._folder}")
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.stdin.close()
        self._holder.wait(10)
        self._holder.stdout.close()

    def fill(self) -> None:
        """Leave no room at all."""
        with (self.path / "ballast").open("ab", buffering=0) as ballast:
            for block in (BLOCK, BLOCK[:512]):
                try:
                    while ballast.write(block):
                        pass
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Give the room back."""
        (self.path / "ballast").unlink()


def unavailable(reason: str) -> None:
    """Skip the test, and fail it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
