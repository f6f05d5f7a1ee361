"""What a request may ask for: the table of bad input in the acceptance criteria, line by line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from app.models import valid_user_id
from web import parameters
from web.errors import Problem

ROOT = Path(__file__).parents[2]


def asked(target: str):
    """A request for `target`, the path and query exactly as they were sent."""
    return make_mocked_request("GET", target)


def user_of(segment: str) -> str:
    """The user whom a path with `segment` means."""
    return parameters.user_id(asked(f"/v1/users/{segment}/purchases"), 3)


def product_of(segment: str) -> str:
    """The product that a path with `segment` means."""
    return parameters.product_name(asked(f"/v1/products/{segment}"), 3)


def limit_of(query: str, default: int = 20) -> int:
    """The limit that a query means."""
    return parameters.limit(asked(f"/v1/users/ann/purchases?{query}"), default)


def problem(ask, *args) -> Problem:
    """The 400 with which a question is answered."""
    with pytest.raises(Problem) as caught:
        ask(*args)
    assert caught.value.status == 400
    return caught.value


def test_reading_parameters_needs_neither_faust_nor_kafka():
    program = "import sys, web.parameters; print(*sys.modules)"

    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert not {"faust", "aiokafka", "app.core"} & set(answer.stdout.split())


# --- limit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=00", "limit=-1", "limit=1e3", "limit=+5", "limit=%2B5", "limit=%205", "limit=5%20",
        "limit=%D9%A3", "limit=٣", "limit=²", "limit=", "limit", "limit=5&limit=5", "limit=5&limit=",
        "limit=5.0", "limit=0x5", "limit=1_0", "limit=5%0A", "limit=%00", "limit=%ff", "limit=five",
        "limit=5;6",
    ],
)  # fmt: skip
def test_a_limit_that_is_no_whole_number_from_1_is_refused_by_name(query):
    found = problem(limit_of, query)

    assert (found.code, found.parameter) == ("invalid-parameter", "limit")


@pytest.mark.parametrize(("text", "limit"), [("1", 1), ("5", 5), ("100", 100), ("007", 7)])
def test_a_limit_up_to_100_counts(text, limit):
    assert limit_of(f"limit={text}") == limit


@pytest.mark.parametrize("number", [101, 1000, 2**63, 10**18])
def test_a_limit_above_100_is_100(number):
    assert limit_of(f"limit={number}") == 100


def test_without_a_limit_the_default_counts_up_to_100():
    assert limit_of("") == 20
    assert limit_of("", default=500) == 100


# --- unknown parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "name"),
    [("limt=5", "limt"), ("limit=5&x", "x"), ("LIMIT=5", "LIMIT"), ("=5", ""), ("a;limit=5", "a;limit")],
)
def test_an_unknown_parameter_is_refused_with_the_allowed_list(query, name):
    found = problem(parameters.only, asked(f"/x?{query}"), "limit", "cursor")

    assert (found.code, found.parameter) == ("unknown-parameter", name)
    assert found.detail == "allowed parameters: limit, cursor"


def test_where_no_parameter_is_allowed_the_answer_says_so():
    assert problem(parameters.only, asked("/x?limit=5")).detail == "allowed parameters: none"


@pytest.mark.parametrize("query", ["", "limit=5", "limit=5&limit=6", "&&", "%6cimit=5"])
def test_known_parameters_pass(query):
    assert parameters.only(asked(f"/x?{query}"), "limit") is None


def test_a_long_unknown_parameter_is_cut_in_the_answer():
    assert problem(parameters.only, asked("/x?" + "y" * 5000)).parameter == "y" * 100


# --- user ids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segment", "user_id"),
    [
        ("ann", "ann"),
        ("a%2Fb", "a/b"),
        ("a%2fb", "a/b"),
        ("%F0%9F%98%80", "😀"),
        ("%25", "%"),
        ("%252F", "%2F"),
        ("%25ff", "%ff"),
        ("ann.", "ann."),
        ("...", "..."),
        ("%3F", "?"),
        ("%23", "#"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("a;b", "a;b"),
        ("%61nn", "ann"),
        ("e%CC%81", "e\u0301"),
        ("a" * 128, "a" * 128),
        ("%C3%A4" * 64, "ä" * 64),
    ],
)
def test_a_user_id_is_exactly_the_bytes_that_were_sent(segment, user_id):
    assert user_of(segment) == user_id


INVALID = {
    "empty": "",
    "129 bytes": "a" * 129,
    "65 letters of two bytes": "%C3%A4" * 65,
    "NUL": "%00",
    "NUL inside": "a%00b",
    "line feed": "ann%0A",
    "DEL": "%7F",
    "C1 control": "%C2%85",
    "no UTF-8": "%ff",
    "half of a letter": "%C3",
    "overlong slash": "%C0%AF",
    "lone surrogate": "%ED%A0%80",
    "one dot": ".",
    "two dots": "..",
    "two encoded dots": "%2e%2E",
    # So aiohttp's parser in Python hands on a byte that is not ASCII.
    "raw byte that is no UTF-8": "\udcff",
}


@pytest.mark.parametrize("segment", INVALID.values(), ids=INVALID)
def test_an_invalid_user_id_is_refused(segment):
    found = problem(user_of, segment)

    assert (found.code, found.parameter) == ("invalid-user-id", "user_id")


@given(st.text(min_size=1, max_size=130))
def test_every_user_id_that_an_event_may_have_can_be_asked_for(user_id):
    segment = quote(user_id, safe="")
    if valid_user_id(user_id):
        assert user_of(segment) == user_id
    else:
        assert problem(user_of, segment).code == "invalid-user-id"


def test_a_request_that_names_its_server_means_the_same_user():
    # A proxy sends the absolute form, and every server must take it (RFC 9112, 3.2.2).
    assert parameters.user_id(asked("http://localhost:6066/v1/users/ann/purchases?limit=5"), 3) == "ann"


def test_the_query_is_no_part_of_the_user_id():
    assert parameters.user_id(asked("/users/ann?limit=5"), 2) == "ann"
    assert parameters.user_id(asked("/users/ann%3Flimit=5"), 2) == "ann?limit=5"


# --- product names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("tea", "tea"),
        ("a%2Fb", "a/b"),
        ("%3Cscript%3E", "<script>"),
        ("%20", " "),
        ("%C3%A9" * 1024, "é" * 1024),
    ],
)
def test_a_product_name_is_exactly_the_bytes_that_were_sent(segment, name):
    assert product_of(segment) == name


@pytest.mark.parametrize("segment", ["", "x" * 1025, "%ff", "\udcff"], ids=["empty", "1,025", "no UTF-8", "raw byte"])
def test_an_invalid_product_name_is_refused(segment):
    found = problem(product_of, segment)

    assert (found.code, found.parameter) == ("invalid-product-name", "product_name")
