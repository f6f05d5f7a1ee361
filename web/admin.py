"""What an operator may change while a worker runs."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

import msgspec
from aiohttp.web import Request, Response

from app.core import app
from web import schemas
from web.http import body, parameters
from web.http.problems import Problem
from web.http.routes import JSON, Access, Route

log = logging.getLogger(__name__)


class LogLevel(msgspec.Struct, forbid_unknown_fields=True):
    """From which level on a logger of this worker speaks; without a name: all that have no level of their own."""

    level: Literal["debug", "info", "warning", "error", "critical"]
    logger: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "root"


@Route(
    "/v1/admin/log-level",
    "Set the log level of this worker",
    Access.ADMIN,
    (JSON,),
    schemas.LogLevelChange,
    problems=(
        *("unknown-parameter", "malformed-json", "not-found", "request-timeout"),
        *("unsupported-media-type", "invalid-body"),
    ),
    method="post",
    body=LogLevel,
    tags=("operations",),
)
async def set_log_level(context: object, request: Request) -> Response:
    """Set the level; answers with the level that it was before."""
    parameters.require_known(request)
    wanted = await body.read(request, LogLevel)
    if wanted.logger != "root" and wanted.logger not in logging.root.manager.loggerDict:
        raise Problem(422, "invalid-body", "there is no logger of this name", pointer="/logger")
    logger = logging.getLogger(None if wanted.logger == "root" else wanted.logger)
    before = logging.getLevelName(logger.getEffectiveLevel()).lower()
    logger.setLevel(wanted.level.upper())
    log.warning("an operator set the level of %s from %s to %s", logger.name, before, wanted.level)
    answer = {"logger": wanted.logger, "level": wanted.level, "before": before, "worker": app.address}
    return Response(body=msgspec.json.encode(answer), content_type="application/json", charset="utf-8")
