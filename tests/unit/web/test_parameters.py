"""The parameters of a request: every rule for valid and invalid input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from domain.events import is_valid_user_id
from web import purchase_query, resource_names
from web.http import parameters
from web.http.problems import Problem

ROOT = Path(__file__).parents[3]


def request_for(target: str):
    """A request for `target`, the undecoded path and query."""
    return make_mocked_request("GET", target)


def user_of(segment: str) -> str:
    """The user id in a path with `segment`."""
    return parameters.read_user_id(request_for(f"/v1/users/{segment}/purchases"), 3)


def product_of(segment: str) -> str:
    """The product name in a path with `segment`."""
    return resource_names.read_product_name(request_for(f"/v1/products/{segment}"), 3)


def limit_of(query: str, default: int = 20) -> int:
    """The limit in a query."""
    return parameters.read_limit(request_for(f"/v1/users/ann/purchases?{query}"), default)


def problem(read, *args) -> Problem:
    """The Problem 400 that `read` raises."""
    with pytest.raises(Problem) as caught:
        read(*args)
    assert caught.value.status == 400
    return caught.value


def test_reading_parameters_needs_neither_faust_nor_kafka():
    program = "import sys, web.purchase_query, web.resource_names; print(*sys.modules)"

    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert not {"faust", "aiokafka", "app.core"} & set(result.stdout.split())


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
def test_a_limit_that_is_no_whole_number_from_1_is_an_invalid_parameter(query):
    error = problem(limit_of, query)

    assert (error.code, error.parameter) == ("invalid-parameter", "limit")


@pytest.mark.parametrize(("text", "limit"), [("1", 1), ("5", 5), ("100", 100), ("007", 7)])
def test_a_limit_up_to_100_is_used(text, limit):
    assert limit_of(f"limit={text}") == limit


@pytest.mark.parametrize("number", [101, 1000, 2**63, 10**18, 10**19, 10**4000])
def test_a_limit_above_100_is_100(number):
    assert limit_of(f"limit={number}") == 100


def test_without_a_limit_the_default_is_used_up_to_100():
    assert limit_of("") == 20
    assert limit_of("", default=500) == 100


# --- unknown parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "name"),
    [("limt=5", "limt"), ("limit=5&x", "x"), ("LIMIT=5", "LIMIT"), ("=5", ""), ("a;limit=5", "a;limit")],
)
def test_an_unknown_parameter_is_refused_with_the_allowed_list(query, name):
    error = problem(parameters.require_known, request_for(f"/x?{query}"), "limit", "cursor")

    assert (error.code, error.parameter) == ("unknown-parameter", name)
    assert error.detail == "allowed parameters: limit, cursor"


def test_a_route_without_parameters_allows_none():
    assert problem(parameters.require_known, request_for("/x?limit=5")).detail == "allowed parameters: none"


@pytest.mark.parametrize("query", ["", "limit=5", "limit=5&limit=6", "&&", "%6cimit=5"])
def test_known_parameters_pass(query):
    assert parameters.require_known(request_for(f"/x?{query}"), "limit") is None


def test_a_long_unknown_parameter_is_truncated_in_the_problem():
    assert problem(parameters.require_known, request_for("/x?" + "y" * 5000)).parameter == "y" * 100


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
def test_a_user_id_is_decoded_byte_for_byte(segment, user_id):
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
    # The representation of a non-ASCII byte by aiohttp's Python parser.
    "raw byte that is no UTF-8": "\udcff",
}


@pytest.mark.parametrize("segment", INVALID.values(), ids=INVALID)
def test_an_invalid_user_id_is_refused(segment):
    error = problem(user_of, segment)

    assert (error.code, error.parameter) == ("invalid-user-id", "user_id")


@given(st.text(min_size=1, max_size=130))
def test_every_user_id_that_is_valid_in_an_event_is_valid_in_a_path(user_id):
    segment = quote(user_id, safe="")
    if is_valid_user_id(user_id):
        assert user_of(segment) == user_id
    else:
        assert problem(user_of, segment).code == "invalid-user-id"


def test_the_absolute_form_of_a_target_names_the_same_user():
    # A proxy sends the absolute form, and every server must accept it (RFC 9112, 3.2.2).
    assert parameters.read_user_id(request_for("http://localhost:6066/v1/users/ann/purchases?limit=5"), 3) == "ann"


def test_the_query_is_no_part_of_the_user_id():
    assert parameters.read_user_id(request_for("/users/ann?limit=5"), 2) == "ann"
    assert parameters.read_user_id(request_for("/users/ann%3Flimit=5"), 2) == "ann?limit=5"


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
def test_a_product_name_is_decoded_byte_for_byte(segment, name):
    assert product_of(segment) == name


@pytest.mark.parametrize("segment", ["", "x" * 1025, "%ff", "\udcff"], ids=["empty", "1,025", "no UTF-8", "raw byte"])
def test_an_invalid_product_name_is_refused(segment):
    error = problem(product_of, segment)

    assert (error.code, error.parameter) == ("invalid-product-name", "product_name")


# --- the query of a list of purchases ------------------------------------------------------------------


def read_query(query: str, allowed: tuple[str, ...] = purchase_query.ALL_NAMES) -> purchase_query.PurchaseQuery:
    """The query for a user's purchases."""
    return purchase_query.read(request_for(f"/v1/users/ann/purchases?{query}"), allowed, 20)


WRONG = {
    "limit": ["0", "-1", "", "x"],
    "group_by": ["", "user", "Order", "order,product", "%20order"],
    "payment_method": ["", "%ff", "x" * 256],
    "max_lag_ms": ["-1", "text", "", "+5", "%2B5", "1.5", "1e3", "%D9%A3", "%205", "9" * 20],
    "after_order": ["", "%ff", "x" * 256],
    "wait_ms": ["-1", "text", "", "+5", "%2B5", "1.5", "5001", "9" * 19],
    "consistency": ["", "strong", "ANY", "standby"],
}
NO_TIMES = [
    "", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31T12:00Z", "2026-01-31%2012:00:00Z",
    "2026-01-31T12:00:00+01:00", "2026-01-31T12:00:00%2B1:00", "2026-02-30T12:00:00Z", "2026-01-31T24:00:01Z",
    "2026-01-31T12:00:60Z", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "-001-01-01T00:00:00Z",
    "2026-01-31T12:00:00%2B24:00", "2026-01-31T12:00:00.Z", "2026-01-31T12:00:00%2B05:60", "1769860800", "%ff",
    "2026-01-31T12:00:00Z%0A", "٢٠٢٦-01-31T12:00:00Z",
]  # fmt: skip
CASES = [(name, text) for name, texts in WRONG.items() for text in texts]
CASES += [(name, text) for name in ("since", "until") for text in NO_TIMES]


@pytest.mark.parametrize(("name", "text"), CASES)
def test_an_invalid_value_is_an_invalid_parameter(name, text):
    error = problem(read_query, f"{name}={text}")

    assert (error.code, error.parameter) == ("invalid-parameter", name)
    assert name in error.detail


RIGHT = {
    "limit": "5", "cursor": "abc", "group_by": "order", "since": "2026-01-31T12:00:00Z",
    "until": "2026-01-31T12:00:00Z", "payment_method": "card", "max_lag_ms": "0", "after_order": "o-1",
    "wait_ms": "5000", "consistency": "any",
}  # fmt: skip


@pytest.mark.parametrize("name", purchase_query.ALL_NAMES)
def test_a_parameter_given_twice_is_an_invalid_parameter(name):
    assert read_query(f"{name}={RIGHT[name]}")
    for twice in (f"{name}={RIGHT[name]}&{name}={RIGHT[name]}", f"{name}={RIGHT[name]}&{name}"):
        error = problem(read_query, twice)
        assert (error.code, error.parameter) == ("invalid-parameter", name)


def test_all_parameters_are_read_together():
    query = read_query("&".join(f"{name}={text}" for name, text in RIGHT.items()))

    noon = 1_769_860_800_000_000
    assert query == (5, "abc", "order", (noon, noon, "card"), 0, "o-1", 5000, "any")
    assert read_query("") == (20, None, None, (None, None, None), None, None, 0, "any")


def test_since_must_not_be_later_than_until():
    error = problem(read_query, "since=2026-01-31T12:00:00.000001Z&until=2026-01-31T12:00:00Z")

    assert (error.code, error.parameter) == ("invalid-parameter", "since")


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.5z", 500_000),
        ("1970-01-01T00:00:00.000001-00:00", 1),
        ("1970-01-01T01:30:00%2B01:30", 0),
        # A time between two microseconds is rounded up.
        ("1970-01-01T00:00:00.0000001Z", 1),
        ("1970-01-01T00:00:00.123456789Z", 123_457),
        ("1970-01-01T00:00:00.1234560000%2B00:00", 123_456),
        ("0001-01-01T00:00:00%2B01:00", -62_135_600_400_000_000),
        ("9999-12-31T23:59:59.999999-01:00", 253_402_304_399_999_999),
    ],
)
def test_a_time_is_converted_from_its_zone(text, microseconds):
    assert read_query(f"since={text}").filter.since == microseconds


@given(st.text(min_size=1, max_size=255))
def test_any_payment_method_is_a_valid_filter(method):
    assert read_query(f"payment_method={quote(method, safe='')}").filter.payment_method == method
    assert read_query(f"payment_method={quote(method, safe='+').replace('+', '%2B')}").filter.payment_method == method


def test_a_parameter_that_the_route_does_not_allow_is_unknown():
    error = problem(read_query, "wait_ms=5", purchase_query.SELECTION_NAMES)

    assert (error.code, error.detail) == (
        "unknown-parameter",
        "allowed parameters: limit, group_by, since, until, payment_method",
    )


# --- many users --------------------------------------------------------------------------------------------


def users_of(query: str) -> list[str]:
    """The user ids in a query."""
    return parameters.read_user_ids(request_for(f"/v1/purchases?{query}"))


def test_user_ids_keep_their_order_without_duplicates():
    assert users_of("user_id=b&limit=5&user_id=a%2Fb&user_id=b&%75ser_id=a+b") == ["b", "a/b", "a b"]
    assert len(users_of("&".join(f"user_id={number}" for number in range(100)))) == 100


@pytest.mark.parametrize("query", ["", "limit=5", "&".join(f"user_id={number}" for number in range(101))])
def test_the_number_of_users_is_bounded(query):
    error = problem(users_of, query)

    assert (error.code, error.parameter) == ("invalid-parameter", "user_id")


@pytest.mark.parametrize("segment", [segment for segment in INVALID.values() if "\udcff" not in segment])
def test_each_of_many_user_ids_is_checked(segment):
    error = problem(users_of, f"user_id=ann&user_id={segment}")

    assert (error.code, error.parameter) == ("invalid-user-id", "user_id")
