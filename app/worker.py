"""What a worker checks before it joins the group."""

from __future__ import annotations

import faulthandler
import gc
import ipaddress
import logging
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import faust
from faust.worker import Worker as FaustWorker
from filelock import FileLock

from app.control.generation import require_startable_generation
from app.errors import BadFolder, BadSetting, PortTaken, WrongLibrary
from app.folder_lock import lock_folder
from app.kafka.admin import ensure_topics
from app.kafka.groups import require_no_rival
from app.logs import dress
from app.settings import Settings
from chunks import PROTOCOL, ChunkError, UnsupportedLibrary, check_libraries
from domain.errors import LatelyError

#: A worker whose Kafka answers stops within a few seconds.
LONGEST_STOP_S = 20


class Worker(FaustWorker):
    """Replaces: a worker that starts whatever the topics, the port and the folder are like."""

    def __init__(self, app: faust.App, *args: Any, **kwargs: Any) -> None:
        super().__init__(app, *args, **kwargs)
        # The spinner sets the root logger to DEBUG at the default log level, and each record costs.
        self.spinner = None

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        """Let the log be what the settings ask for."""
        super().on_setup_root_logger(logger, level)
        dress(logger, self.app.settings)

    def execute_from_commandline(self) -> None:
        """Check what can be checked, then run; exit 2 or 75 with one line before the group is joined."""
        try:
            self.loop.run_until_complete(self._check(self.app.settings))
        except LatelyError as exc:
            print(f"lately: {exc}", file=sys.stderr, flush=True)  # noqa: T201 - there is no log yet
            raise SystemExit(exc.exit_code) from None
        # What was imported stays; young objects are many here and hardly ever part of a cycle.
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        # Where a library written in C ends the process, its log says in what.
        faulthandler.enable()
        self.app.freeze_guard.start()
        try:
            super().execute_from_commandline()
        except BaseException:
            # What came first is the cause; what mode raises may be a mere consequence.
            cause = self.app.crash_reason
            if not isinstance(cause, LatelyError | ChunkError):
                raise
            # What is still said of futures and tasks follows from the cause.
            logging.disable()
            print(f"lately: {cause}", file=sys.stderr, flush=True)  # noqa: T201 - the last line a person sees
            raise SystemExit(1) from None

    async def stop(self) -> None:
        """Stop, and end the process where that takes too long: Kafka may be away, and is waited for in many places.

        What was not committed by then is done again by whoever is next.
        """
        last_resort = threading.Timer(LONGEST_STOP_S, _end)
        last_resort.daemon = True
        last_resort.start()
        await super().stop()

    async def _check(self, settings: Settings) -> None:
        conf = self.app.conf
        try:
            check_libraries()
        except UnsupportedLibrary as exc:
            raise WrongLibrary(str(exc)) from None
        self._folder_lock = _lock_folder(Path(conf.datadir))
        if conf.web_enabled:
            if settings.auth == "none" and not settings.auth_insecure:
                _check_loopback(conf.web_bind)
            _check_port(conf.web_bind, conf.web_port)
        await require_startable_generation(settings)
        await ensure_topics(settings, self.app.extra_topics)
        await require_no_rival(
            settings, self.app.tables.group_id, self.app.selected_agents, self.app.source_topics, PROTOCOL
        )


def _end() -> None:
    sys.stderr.write(
        f"lately: not stopped after {LONGEST_STOP_S} s, Kafka does not answer (or the disk is full): ending at once; "
        "what is not committed will be done again\n"
    )
    sys.stderr.flush()
    os._exit(1)


def _lock_folder(folder: Path) -> FileLock:
    # Two workers with one RocksDB would each wait for the partitions of the other.
    try:
        return lock_folder(folder, "the worker", "give each worker a folder of its own with LATELY_DATA_DIR")
    except OSError as exc:
        raise BadFolder(
            f"{folder} cannot be written to ({exc.strerror}): make room there, or let LATELY_DATA_DIR name another "
            "folder"
        ) from None


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise PortTaken(
                f"cannot serve HTTP on {host}:{port} ({exc.strerror}): "
                "stop what listens there, or choose another with LATELY_WEB_PORT"
            ) from None


def _check_loopback(host: str) -> None:
    try:
        found = socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)
    except OSError:
        return  # then it cannot be served on either, and the check of the port says so
    addresses = [address[0].partition("%")[0] for *_, address in found]
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise BadSetting(
            f"LATELY_AUTH is none, and {host or 'every address'} can be reached from other machines: "
            "set LATELY_AUTH=token, or LATELY_AUTH_INSECURE=1 if everybody who reaches it may read everything"
        )
