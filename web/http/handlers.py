"""Types of the functions that handle requests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TypeVar

from aiohttp.web import Request, StreamResponse
from msgspec import Struct

from web.http.prebuilt import PrebuiltResponse

#: The context that views receive from the application that mounts them.
C = TypeVar("C")

AnyResponse = StreamResponse | PrebuiltResponse
#: A response, or a coroutine if the handler has to wait.
HandlerResult = AnyResponse | Coroutine[None, None, AnyResponse]
Handler = Callable[[Request], HandlerResult]

#: The content of a JSON response, or a response.
ViewResponse = Struct | AnyResponse
ViewResult = ViewResponse | Coroutine[None, None, ViewResponse]
ViewFunction = Callable[[C, Request], ViewResult]
