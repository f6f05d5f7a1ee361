"""Reading the body of a request, and saying exactly what is wrong with it."""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import msgspec
from aiohttp.web import Request, RequestPayloadError

from domain.codec import UNDECODABLE
from web.http.limits import TIMEOUT_S
from web.http.problems import Problem

T = TypeVar("T", bound=msgspec.Struct)

_PLACE = re.compile(r" - at `(?:key in )?\$(.*?)`$")
_FIELD = re.compile(r"(?:unknown|required) field `(.*?)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


async def read(request: Request, kind: type[T]) -> T:
    """The JSON body as a `kind`, a Struct with `forbid_unknown_fields`.

    Raises Problem: 408 request-timeout, 413 body-too-large, 415 unsupported-media-type, 400 malformed-json, 422
    invalid-body with the JSON pointer of the field.
    """
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
        raise Problem(415, "unsupported-media-type", "the body must be application/json in UTF-8")
    try:
        body = await asyncio.wait_for(request.read(), TIMEOUT_S)
    except asyncio.TimeoutError:
        raise Problem(408, "request-timeout", f"the body was not complete after {TIMEOUT_S:g} s") from None
    except RequestPayloadError:
        raise Problem(400, "bad-request", "the body is not transferred as its headers say") from None
    try:
        document = msgspec.json.decode(body)
    except UNDECODABLE:
        raise Problem(400, "malformed-json", "the body is not a JSON document") from None
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as exc:
        raise Problem(422, "invalid-body", str(exc), pointer=pointer(str(exc))) from None


def pointer(message: str) -> str:
    """The JSON pointer (RFC 6901) of the field that a message of msgspec speaks of."""
    place, field = _PLACE.search(message), _FIELD.search(message)
    steps = [name or number for name, number in _STEP.findall(place[1])] if place else []
    if field:
        steps.append(field[1])
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
