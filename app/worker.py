"""The checks of a worker before it joins the group, and its stop."""

from __future__ import annotations

import errno
import faulthandler
import gc
import ipaddress
import logging
import os
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from faust.worker import Worker as FaustWorker
from filelock import FileLock

from app.control.identity import prepare_topics
from app.errors import BadFolder, BadSetting, PortTaken, WrongLibrary
from app.folder_lock import PRIVATE, lock_folder
from app.kafka.groups import require_no_rival
from app.logs import configure_handlers
from app.setting_values import bracketed
from chunks import PROTOCOL, ChunkError, UnsupportedLibrary, check_libraries
from domain.errors import LatelyError
from domain.text import printable

if TYPE_CHECKING:
    from app.core import Lately

#: A worker stops within a few seconds if Kafka answers.
STOP_TIMEOUT_S = 20


class Worker(FaustWorker):
    """Replaces: a worker that starts without checking its topics, port and folder."""

    app: Lately

    def __init__(self, app: Lately, *args: Any, **kwargs: Any) -> None:
        super().__init__(app, *args, **kwargs)
        # The spinner sets the level of the root logger to DEBUG, and each record costs time.
        self.spinner = None

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        """Apply the settings of the log."""
        super().on_setup_root_logger(logger, level)
        configure_handlers(logger, self.app.settings)

    def execute_from_commandline(self) -> NoReturn:
        """Check the environment, then run.

        A failed check exits with 2 or 75 and one line, before the worker joins the group.
        """
        os.umask(PRIVATE)
        try:
            self.loop.run_until_complete(self._check())
        except LatelyError as exc:
            print(printable(f"lately: {exc}"), file=sys.stderr, flush=True)  # noqa: T201 - there is no log yet
            raise SystemExit(exc.exit_code) from None
        # Imported modules are never garbage. A worker creates many young objects, and few of them
        # are part of a cycle.
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        # If a library written in C ends the process, the log then contains the stack.
        faulthandler.enable()
        self.app.freeze_guard.start()
        try:
            super().execute_from_commandline()
        except BaseException:
            # The first error is the cause; mode may raise a mere consequence.
            cause = self.app.crash_reason
            if not isinstance(cause, LatelyError | ChunkError):
                raise
            # Messages about futures and tasks from here on are consequences.
            logging.disable()
            print(printable(f"lately: {cause}"), file=sys.stderr, flush=True)  # noqa: T201 - the last line a person sees
            raise SystemExit(1) from None

    async def stop(self) -> None:
        """Stop, and end the process after a timeout.

        Many steps of a stop wait for Kafka, which may be away.

        The next owner of the partitions repeats the uncommitted work.
        """
        timeout = threading.Timer(STOP_TIMEOUT_S, _exit_at_timeout)
        timeout.daemon = True
        timeout.start()
        await super().stop()

    async def _check(self) -> None:
        app, settings = self.app, self.app.settings
        try:
            check_libraries()
        except UnsupportedLibrary as exc:
            raise WrongLibrary(str(exc)) from None
        self._folder_lock = _lock_folder(Path(app.conf.datadir))
        if app.conf.web_enabled:
            if settings.auth == "none" and not settings.auth_insecure:
                _require_loopback(app.conf.web_bind.strip("[]"))
            _require_free_port(app.conf.web_bind.strip("[]"), app.conf.web_port)
        await prepare_topics(settings, app.extra_topics)
        await require_no_rival(settings, app.consumer_group, app.selected_agents, app.source_topics, PROTOCOL)


def _exit_at_timeout() -> None:
    sys.stderr.write(
        f"lately: not stopped after {STOP_TIMEOUT_S} s, Kafka does not answer (or the disk is full): the process exits "
        "now; uncommitted work will be repeated\n"
    )
    sys.stderr.flush()
    os._exit(1)


def _lock_folder(folder: Path) -> FileLock:
    # Two workers with one RocksDB would each wait for the partitions of the other.
    try:
        return lock_folder(folder, "the worker", "give each worker a folder of its own with LATELY_DATA_DIR")
    except OSError as exc:
        raise BadFolder(
            f"{folder} cannot be written to ({exc.strerror}): make room there, or set LATELY_DATA_DIR to another folder"
        ) from None


def _require_free_port(host: str, port: int) -> None:
    """Raise PortTaken or BadSetting, with the cause, if the worker cannot listen on an address."""
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise BadSetting(
            f"LATELY_WEB_HOST: {host!r} cannot be resolved ({getattr(exc, 'strerror', None) or exc}): "
            "set it to a name or an address of this machine"
        ) from None
    for family, _, _, _, address in addresses:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as exc:
                raise PortTaken(
                    f"cannot serve HTTP on {bracketed(host)}:{port} ({exc.strerror}): {_next_step(exc)}"
                ) from None


def _next_step(exc: OSError) -> str:
    if exc.errno == errno.EADDRNOTAVAIL:
        return "set LATELY_WEB_HOST to an address of this machine"
    if exc.errno == errno.EACCES:
        return "only an administrator may use this port: set LATELY_WEB_PORT to one above 1023"
    return "stop the process that listens there, or set LATELY_WEB_PORT to another port"


def _require_loopback(host: str) -> None:
    try:
        resolved = socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)
    except OSError:
        return  # the check of the port fails for this host, and reports it
    addresses = [str(address[0]).partition("%")[0] for *_, address in resolved]
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise BadSetting(
            f"LATELY_AUTH is none, and {host or 'every address'} can be reached from other machines: "
            "set LATELY_AUTH=token, or LATELY_AUTH_INSECURE=1 if everybody who reaches it may read everything"
        )
