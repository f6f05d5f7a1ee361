"""Access tokens: JSON Web Tokens (RFC 7519) signed with HMAC-SHA256.

A shop can create its own tokens with any JWT library.

The claim `sub` names the user, the `scope` "operator" an operator; `exp` is optional. Nothing is
stored.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import jwt

from app.errors import BadToken
from domain.events import is_valid_user_id

OPERATOR = "operator"

_ALGORITHM = "HS256"

# Settings.check requires a minimum length of the secret.
warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)


@dataclass(frozen=True)
class Caller:
    """The user of a token, an operator, or both.

    `expires_at` is in seconds since 1970; None: never.
    """

    user: str | None
    is_operator: bool
    expires_at: int | None = None


def create_token(secret: str, *, user: str | None = None, operator: bool = False, days: float | None = None) -> str:
    """Return a token for `user`, an operator, or both; it expires after `days`, or never."""
    claims: dict[str, object] = {}
    if user is not None:
        claims["sub"] = user
    if operator:
        claims["scope"] = OPERATOR
    if days is not None:
        claims["exp"] = datetime.now(timezone.utc) + timedelta(days=days)
    return jwt.encode(claims, secret, algorithm=_ALGORITHM)


def read_token(secret: str, token: str) -> Caller:
    """Return the caller of `token`; signatures are compared in constant time.

    Raises BadToken, which never contains the cause.
    """
    try:
        claims = jwt.decode(token, secret, algorithms=[_ALGORITHM], options={"verify_aud": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise BadToken from None
    user, scope = claims.get("sub"), claims.get("scope")
    is_operator = isinstance(scope, str) and OPERATOR in scope.split()
    is_valid = is_operator if user is None else is_valid_user_id(user)
    if not is_valid:
        raise BadToken
    return Caller(user, is_operator, int(claims["exp"]) if "exp" in claims else None)
