"""Declarations of HTTP routes.

A route is declared once, at its view. The router, the access check, the choice of the media type
and /openapi.json are derived from this declaration.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic

from msgspec import Struct

from web.http.handlers import C, ViewFunction

JSON, HTML, TEXT, EVENTS = "application/json", "text/html", "text/plain", "text/event-stream"
MSGPACK = "application/msgpack"


class Access(Enum):
    """The callers that a route allows with LATELY_AUTH=token.

    Without tokens every route but ADMIN is open.
    """

    OPEN = "everybody"
    OWN = "a user about their own data, an operator about all"
    OPERATOR = "an operator"
    ADMIN = "an operator, with LATELY_AUTH=token only"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a route; `schema` is its JSON Schema, `example` a valid value."""

    name: str
    description: str
    schema: dict[str, object]
    location: str = "query"
    example: object = None


@dataclass(frozen=True, eq=False)
class Route:
    """The declaration of a route; as a decorator, it turns a function into a View.

    Each variable of `path` is one segment in braces. `method` is in lower case; a route of GET also
    serves HEAD. `response` is the structure of the JSON, None if it is not fixed. `problems` are
    codes, in addition to those that every route has.
    """

    path: str
    summary: str
    access: Access = Access.OWN
    media: tuple[str, ...] = (JSON, HTML)
    response: type[Struct] | None = None
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[str, ...] = ()
    method: str = "get"
    body: type[Struct] | None = None
    #: Response headers; a route with an ETag also responds 304.
    headers: tuple[str, ...] = ()
    #: A user's token is accepted only if the query names that user.
    names_user: bool = False
    tags: tuple[str, ...] = ("data",)

    def __call__(self, function: ViewFunction[C]) -> View[C]:
        """Return the view that handles the requests of this route."""
        return View(self, function)


@dataclass(frozen=True)
class View(Generic[C]):
    """A route and the function that handles its requests."""

    route: Route
    function: ViewFunction[C]


#: The route of a page that is served but not declared: operators only.
UNLISTED = Route("", "", Access.OPERATOR, ())
