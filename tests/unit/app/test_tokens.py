"""Whom a token names, and which tokens name nobody."""

from __future__ import annotations

import json
import time

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import tokens
from app.errors import BadToken
from app.tokens import Caller
from domain.events import is_valid_user_id

SECRET = "a secret as long as the longest algorithm likes it, so 64 bytes: "
NUL = "\x00"


@given(st.text(min_size=1, max_size=40).filter(is_valid_user_id), st.booleans(), st.sampled_from([None, 1, 365]))
def test_a_token_names_whom_it_was_made_for(user, operator, days):
    token = tokens.create_token(SECRET, user=user, operator=operator, days=days)
    caller = tokens.read_token([SECRET], token)
    assert caller == Caller(user, operator, caller.expires_at)
    days_to_expiry = None if caller.expires_at is None else round((caller.expires_at - time.time()) / 86_400)
    assert days_to_expiry == days
    with pytest.raises(BadToken):
        tokens.read_token([SECRET[::-1]], token)


def test_a_token_of_any_library_will_do():
    signed = jwt.encode({"sub": "ann", "scope": "mail operator", "aud": "shop", "iat": 1}, SECRET, algorithm="HS256")
    assert tokens.read_token([SECRET], signed) == Caller("ann", True)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"scope": "operators"},
        {"scope": ["operator"]},
        {"sub": ""},
        {"sub": 5},
        {"sub": ["ann"]},
        {"sub": f"a{NUL}"},
        {"sub": "..", "scope": "operator"},
        {"sub": "ann", "exp": 1},
        {"sub": "ann", "exp": "tomorrow"},
        {"sub": "ann", "nbf": 10**11},
    ],
)
def test_a_token_that_names_nobody_now_is_bad(claims):
    header = {"alg": "HS256", "typ": "JWT"}
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), SECRET, headers=header)
    with pytest.raises(BadToken):
        tokens.read_token([SECRET], token)


@pytest.mark.parametrize("algorithm", ["none", "HS512"])
def test_no_other_algorithm_is_taken(algorithm):
    token = jwt.encode({"sub": "ann"}, SECRET if algorithm != "none" else None, algorithm=algorithm)
    with pytest.raises(BadToken):
        tokens.read_token([SECRET], token)


@given(st.one_of(st.text(max_size=100), st.binary(max_size=100).map(lambda b: b.decode("latin-1"))))
def test_nothing_else_is_a_token(text):
    with pytest.raises(BadToken):
        tokens.read_token([SECRET], text)
