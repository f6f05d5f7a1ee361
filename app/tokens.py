"""Access tokens: JSON Web Tokens (RFC 7519) signed with HMAC-SHA256, so a shop can make its own with any JWT library.

The claim `sub` names the user, the `scope` "operator" an operator; `exp` is optional. Nothing is stored.
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

# Settings.check says how long a secret must be.
warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)


@dataclass(frozen=True)
class Caller:
    """Whom a token names: a user, an operator, or both; and when it ends, in seconds since 1970."""

    user: str | None
    operator: bool
    ends: int | None = None


def issue(secret: str, *, user: str | None = None, operator: bool = False, days: float | None = None) -> str:
    """A token for `user`, for an operator, or for both; it expires after `days`, or never."""
    claims: dict[str, object] = {}
    if user is not None:
        claims["sub"] = user
    if operator:
        claims["scope"] = OPERATOR
    if days is not None:
        claims["exp"] = datetime.now(timezone.utc) + timedelta(days=days)
    return jwt.encode(claims, secret, algorithm=_ALGORITHM)


def read(secret: str, token: str) -> Caller:
    """Whom `token` names; compares in constant time. Raises BadToken, which never says why."""
    try:
        claims = jwt.decode(token, secret, algorithms=[_ALGORITHM], options={"verify_aud": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise BadToken from None
    user, scope = claims.get("sub"), claims.get("scope")
    operator = isinstance(scope, str) and OPERATOR in scope.split()
    if not operator if user is None else not is_valid_user_id(user):
        raise BadToken
    return Caller(user, operator, int(claims["exp"]) if "exp" in claims else None)
