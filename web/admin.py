"""Changes to a running worker, for its operator."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

import msgspec
from aiohttp.web import Request

from web.context import WebContext
from web.http import body, parameters
from web.http.problems import Problem
from web.http.routes import JSON, Access, Route
from web.schemas import LogLevelChange

log = logging.getLogger(__name__)


class LogLevel(msgspec.Struct, forbid_unknown_fields=True):
    """The new level of a logger; the root logger's counts for all loggers without a level."""

    level: Literal["debug", "info", "warning", "error", "critical"]
    logger: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "root"


@Route(
    "/v1/admin/log-level",
    "Set the log level of this worker",
    Access.ADMIN,
    (JSON,),
    LogLevelChange,
    problems=(
        *("unknown-parameter", "malformed-json", "not-found", "request-timeout"),
        *("unsupported-media-type", "invalid-body"),
    ),
    method="post",
    body=LogLevel,
    tags=("operations",),
)
async def set_log_level(context: WebContext, request: Request) -> LogLevelChange:
    """Set the level of a logger until the worker ends, and return the level before."""
    parameters.require_known(request)
    change = await body.read(request, LogLevel)
    if change.logger != "root" and change.logger not in logging.root.manager.loggerDict:
        raise Problem(422, "invalid-body", "there is no logger of this name", pointer="/logger")
    logger = logging.getLogger(None if change.logger == "root" else change.logger)
    before = logging.getLevelName(logger.getEffectiveLevel()).lower()
    logger.setLevel(change.level.upper())
    log.warning("an operator set the level of %s from %s to %s", logger.name, before, change.level)
    return LogLevelChange(change.logger, change.level, before, context.worker.address())
