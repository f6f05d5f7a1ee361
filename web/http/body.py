"""Reads the body of a request, and reports exactly what is wrong with it."""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import msgspec
from aiohttp.web import Request, RequestPayloadError

from domain.codec import UNDECODABLE
from web.http.limits import TIMEOUT_S
from web.http.problems import Problem

Body = TypeVar("Body", bound=msgspec.Struct)

_LOCATION = re.compile(r" - at `(?:key in )?\$(.*?)`$")
_FIELD = re.compile(r"(?:unknown|required) field `(.*?)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


async def read(request: Request, body_type: type[Body]) -> Body:
    """Return the JSON body as a `body_type`, a Struct with `forbid_unknown_fields`.

    Raises Problem: 408 request-timeout, 413 body-too-large, 415 unsupported-media-type, 400
    malformed-json, 422 invalid-body with the JSON pointer of the field.
    """
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
        raise Problem(415, "unsupported-media-type", "the body must be application/json in UTF-8")
    try:
        body = await asyncio.wait_for(request.read(), TIMEOUT_S)
    except asyncio.TimeoutError:
        raise Problem(408, "request-timeout", f"the body was not complete after {TIMEOUT_S:g} s") from None
    except RequestPayloadError:
        raise Problem(400, "bad-request", "the body contradicts its headers") from None
    try:
        document = msgspec.json.decode(body)
    except UNDECODABLE:
        raise Problem(400, "malformed-json", "the body is not a JSON document") from None
    try:
        return msgspec.convert(document, body_type)
    except msgspec.ValidationError as exc:
        raise Problem(422, "invalid-body", str(exc), pointer=pointer(str(exc))) from None


def pointer(message: str) -> str:
    """Return the JSON pointer (RFC 6901) of the field in an error message of msgspec."""
    location, field = _LOCATION.search(message), _FIELD.search(message)
    steps = [name or number for name, number in _STEP.findall(location[1])] if location else []
    if field:
        steps.append(field[1])
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
