"""Access control: checks the token in the header Authorization before a view runs."""

from __future__ import annotations

import math
from collections.abc import Callable

from aiohttp.web import Request, RequestKey

from app import tokens
from app.errors import BadToken
from app.settings import Settings
from app.tokens import Caller
from web.http import parameters
from web.http.limits import Limiter
from web.http.problems import Problem
from web.http.routes import Access, Route

#: Marks a request that another worker forwarded.
HOP_HEADER = "Lately-Hop"
#: Its value for the owner of a partition, which forwards nothing itself, and for a worker that may
#: request data from the owners.
OWNER_HOP, ANY_HOP = "1", "any"
#: Paths that exist only with LATELY_AUTH=token, whatever the method.
ADMIN_PREFIX = "/v1/admin/"
#: The expiry of the request's token, in seconds since 1970; missing if it never expires.
EXPIRES_AT: RequestKey[int] = RequestKey("expires_at", int)
#: The caller of the request; missing without tokens.
CALLER: RequestKey[Caller] = RequestKey("caller", Caller)

AccessCheck = Callable[[Request, Route | None], None]


def create_access_check(settings: Settings) -> AccessCheck:
    """Return a function that raises Problem if a request is not allowed.

    The route is None if no path matches the request.
    Problems: 401 token-needed, invalid-token; 403 not-your-data, operators-only; 404 not-found for
    administration without tokens; 429 rate-limited.
    """
    limiter = Limiter(settings.rate_per_s) if settings.rate_per_s else None
    needs_token = settings.auth == "token"

    def check(request: Request, route: Route | None) -> None:
        if route is not None and route.access is Access.OPEN:
            return
        caller = _read_caller(request, settings) if needs_token else None
        if limiter:
            _check_rate(limiter, request, caller)
        if route is not None and needs_token:
            _check_caller(request, route, caller)
        elif not needs_token and request.path.startswith(ADMIN_PREFIX):
            raise Problem(404, "not-found", "this route exists only with LATELY_AUTH=token")

    return check


def _read_caller(request: Request, settings: Settings) -> Caller | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        return tokens.read_token(settings.token_secrets, token.strip(" "), audience=settings.token_audience)
    except BadToken:
        return None


def _check_rate(limiter: Limiter, request: Request, caller: Caller | None) -> None:
    if caller is not None and caller.is_forwarded:
        return  # counted by the worker that forwarded it
    if caller is not None:
        client = f"user {caller.user}" if caller.user is not None else "operator"
    elif HOP_HEADER in request.headers:
        return  # counted by the worker that forwarded it
    else:
        client = f"address {request.remote}"
    wait_s = limiter.take(client)
    if wait_s:
        raise Problem(429, "rate-limited", "too many requests, retry later", retry_after_s=math.ceil(wait_s))


def _check_caller(request: Request, route: Route, caller: Caller | None) -> None:
    if caller is None:
        if "Authorization" in request.headers:
            code, detail = "invalid-token", "the token is invalid or expired"
            challenge = 'Bearer error="invalid_token"'
        else:
            code, detail, challenge = "token-needed", "send a token: Authorization: Bearer …", "Bearer"
        raise Problem(401, code, detail, headers={"WWW-Authenticate": challenge})
    request[CALLER] = caller
    if caller.expires_at is not None:
        request[EXPIRES_AT] = caller.expires_at
    if caller.is_operator:
        return
    if route.access is not Access.OWN:
        raise Problem(403, "operators-only", "this route needs an operator's token")
    users = _requested_users(request)
    if route.names_user and not users:
        raise Problem(403, "operators-only", "without user_id this route needs an operator's token")
    if any(user != caller.user for user in users):
        raise Problem(403, "not-your-data", "the token belongs to another user")


def _requested_users(request: Request) -> list[str]:
    """Return all users whose data the request reads."""
    users = [*request.query.getall("user_id", ()), *request.query.getall("for_user", ())]
    resource = request.match_info.route.resource
    if resource is not None and "user_id" in request.match_info:
        segment = resource.canonical.split("/").index("{user_id}")
        users.append(parameters.read_user_id(request, segment))
    return users


def is_for_owner(request: Request) -> bool:
    """Return whether another worker took this one for the owner of the data, and uses other sources itself."""
    return request.headers.get(HOP_HEADER, ANY_HOP) != ANY_HOP
