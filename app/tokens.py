"""Access tokens: JSON Web Tokens (RFC 7519) signed with HMAC-SHA256.

A shop can create its own tokens with any JWT library.

The claim `sub` names the user, the `scope` "operator" an operator; `exp` is optional. With
LATELY_TOKEN_AUDIENCE the claim `aud` must name it. Nothing is stored.

A worker that forwards a request sends a hop token of its own instead of the caller's token: it
names the same caller and expires soon.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import jwt

from app.errors import BadToken
from domain.events import is_valid_user_id

OPERATOR = "operator"

_ALGORITHM = "HS256"

#: Seconds until a hop token expires: the longest request and the difference of two clocks.
HOP_TOKEN_S = 30
#: The limit of the claim `exp`, far beyond the year 9999.
_MAX_EXPIRY = 2**53
#: The claim of a hop token: the expiry of the caller's token, null if it never expires.
_HOP_CLAIM = "lately_hop"

# Settings.check requires a minimum length of the secret.
warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)


@dataclass(frozen=True)
class Caller:
    """The user of a token, an operator, or both.

    `expires_at` is in seconds since 1970; None: never. `is_forwarded`: another worker has checked
    the caller's token.
    """

    user: str | None
    is_operator: bool
    expires_at: int | None = None
    is_forwarded: bool = False


def create_token(
    secret: str, *, user: str | None = None, operator: bool = False, days: float | None = None, audience: str = ""
) -> str:
    """Return a token for `user`, an operator, or both; it expires after `days`, or never."""
    claims = _claims(user, operator, audience)
    if days is not None:
        claims["exp"] = datetime.now(timezone.utc) + timedelta(days=days)
    return jwt.encode(claims, secret, algorithm=_ALGORITHM)


def create_hop_token(secret: str, caller: Caller, *, audience: str = "") -> str:
    """Return a token with which a worker forwards a request of `caller`; it expires after HOP_TOKEN_S."""
    claims = _claims(caller.user, caller.is_operator, audience)
    claims["exp"] = datetime.now(timezone.utc) + timedelta(seconds=HOP_TOKEN_S)
    claims[_HOP_CLAIM] = caller.expires_at
    return jwt.encode(claims, secret, algorithm=_ALGORITHM)


def _claims(user: str | None, is_operator: bool, audience: str) -> dict[str, object]:
    claims: dict[str, object] = {}
    if user is not None:
        claims["sub"] = user
    if is_operator:
        claims["scope"] = OPERATOR
    if audience:
        claims["aud"] = audience
    return claims


def read_token(secrets: Sequence[str], token: str, *, audience: str = "") -> Caller:
    """Return the caller of a token that one of `secrets` has signed.

    Signatures are compared in constant time. Raises BadToken, which never contains the cause.
    """
    for secret in secrets:
        try:
            claims = jwt.decode(
                token, secret, algorithms=[_ALGORITHM], audience=audience or None,
                options={"verify_aud": bool(audience)},
            )  # fmt: skip
            return _caller(claims)
        except jwt.InvalidSignatureError:
            continue
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise BadToken from None
    raise BadToken


def _caller(claims: Mapping[str, Any]) -> Caller:
    user, scope = claims.get("sub"), claims.get("scope")
    is_operator = isinstance(scope, str) and OPERATOR in scope.split()
    is_valid = is_operator if user is None else is_valid_user_id(user)
    if not is_valid:
        raise BadToken
    is_forwarded = _HOP_CLAIM in claims
    expires_at = claims[_HOP_CLAIM] if is_forwarded else int(claims["exp"]) if "exp" in claims else None
    # Larger numbers are no times, and cannot be converted to the number of a timer.
    if expires_at is not None and (type(expires_at) is not int or not 0 <= expires_at < _MAX_EXPIRY):
        raise BadToken
    return Caller(user, is_operator, expires_at, is_forwarded)
