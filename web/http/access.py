"""Who may ask for what: a token in the header Authorization, checked before any view runs."""

from __future__ import annotations

import math
from collections.abc import Callable

from aiohttp.web import Request

from app import tokens
from app.errors import BadToken
from app.settings import Settings
from app.tokens import Caller
from web.http import parameters
from web.http.limits import Limiter
from web.http.problems import Problem
from web.http.routes import Access, Route

HOP = "Lately-Hop"
#: What there is with tokens only, whatever the method.
ADMIN = "/v1/admin/"
#: What a request has of its token, where that ends: when, in seconds since 1970.
ENDS = "token ends"


def access(settings: Settings) -> Callable[[Request, Route | None], None]:
    """What lets a request pass or refuses it; its route is None where there is nothing at its path.

    Raises Problem: 401 token-needed or invalid-token, 403 not-your-data or operators-only, 404 not-found for what an
    operator could ask if there were tokens, 429 rate-limited.
    """
    limiter = Limiter(settings.rate_per_s) if settings.rate_per_s else None
    secret = settings.token_secret if settings.auth == "token" else None

    def check(request: Request, route: Route | None) -> None:
        if route is not None and route.access is Access.OPEN:
            return
        caller = _caller(request, secret) if secret else None
        if limiter:
            _count(limiter, request, caller)
        if route is not None and secret:
            _check(request, route, caller)
        elif not secret and request.path.startswith(ADMIN):
            raise Problem(404, "not-found", "this route is there with LATELY_AUTH=token only")

    return check


def _caller(request: Request, secret: str) -> Caller | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        return tokens.read(secret, token.strip(" "))
    except BadToken:
        return None


def _count(limiter: Limiter, request: Request, caller: Caller | None) -> None:
    if caller is not None:
        client = f"user {caller.user}" if caller.user is not None else "operator"
    elif HOP in request.headers:
        return  # the worker that was asked first has counted it
    else:
        client = f"address {request.remote}"
    wait = limiter.take(client)
    if wait:
        raise Problem(429, "rate-limited", "too many requests, ask again later", retry_after_s=math.ceil(wait))


def _check(request: Request, route: Route, caller: Caller | None) -> None:
    if caller is None:
        if "Authorization" in request.headers:
            code, detail, how = (
                "invalid-token",
                "the token is not valid, or not any more",
                'Bearer error="invalid_token"',
            )
        else:
            code, detail, how = "token-needed", "send a token: Authorization: Bearer …", "Bearer"
        raise Problem(401, code, detail, headers={"WWW-Authenticate": how})
    if caller.ends is not None:
        request[ENDS] = caller.ends
    if caller.operator:
        return
    if route.access is not Access.OWN:
        raise Problem(403, "operators-only", "only an operator's token opens this")
    users = _users(request)
    if route.names_user and not users:
        raise Problem(403, "operators-only", "without user_id only an operator's token opens this")
    if any(user != caller.user for user in users):
        raise Problem(403, "not-your-data", "the token is another user's")


def _users(request: Request) -> list[str]:
    """All users whose data the request is about."""
    named = [*request.query.getall("user_id", ()), *request.query.getall("for_user", ())]
    if "user_id" in request.match_info:
        segment = request.match_info.route.resource.canonical.split("/").index("{user_id}")
        named.append(parameters.user_id(request, segment))
    return named
