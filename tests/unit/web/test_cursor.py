"""Only the exact cursor that was written can be read."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from app.settings import Settings
from domain.events import MAX_ORDER_ID_BYTES, MAX_PRODUCT_NAME
from domain.pages import PagePosition
from web import purchase_query
from web.http import cursor
from web.http.limits import MAX_LINE_BYTES
from web.http.problems import Problem

KEY = cursor.signing_key(Settings())
BOUND = ("ann", None, (None, None, None), None)

sort_keys = st.tuples(
    st.integers(-(2**62), 2**62), st.integers(0, 1), st.integers(-(2**63), 2**64 - 1), st.text(max_size=20),
    st.text(max_size=20),
)  # fmt: skip
positions = st.builds(PagePosition, sort_keys, st.integers(0, 2**40), st.integers(0, 2**63 - 1))
BITS_OF_A_LETTER = 8


def read_error(key: bytes, bound_to: tuple[object, ...], text: str) -> Problem:
    with pytest.raises(Problem) as caught:
        cursor.read(key, bound_to, text, PagePosition)
    assert (caught.value.status, caught.value.code, caught.value.parameter) == (400, "invalid-cursor", "cursor")
    return caught.value


@given(positions)
def test_a_cursor_is_read_as_the_position_it_was_written_from(position):
    text = cursor.write(KEY, BOUND, position)
    assert cursor.read(KEY, BOUND, text, PagePosition) == position
    assert text.replace("-", "").replace("_", "").isalnum(), "it needs no escaping in a URL"


def test_the_longest_cursor_fits_into_a_request():
    sort_key = (2**63, 1, 2**63, "\U0001f600" * (MAX_ORDER_ID_BYTES // 4), "\U0001f600" * MAX_PRODUCT_NAME)
    text = cursor.write(KEY, BOUND, PagePosition(sort_key, 2**40, 2**63))
    request = make_mocked_request("GET", f"/v1/users/ann/purchases?limit=1&cursor={text}")
    assert len(f"GET {request.path_qs} HTTP/1.1") < MAX_LINE_BYTES
    assert purchase_query.read(request, purchase_query.ALL_NAMES, 20).cursor == text


@given(positions, st.data())
def test_any_change_makes_a_cursor_invalid(position, data):
    text = cursor.write(KEY, BOUND, position)
    at = data.draw(st.integers(0, len(text) - 1))
    flipped = chr(ord(text[at]) ^ (1 << data.draw(st.integers(0, BITS_OF_A_LETTER - 1))))
    replacement = data.draw(st.characters().filter(lambda char: char != text[at]))
    for damaged in (
        *(text[:at], text[at + 1 :], text[:at] + flipped + text[at + 1 :], text[:at] + replacement + text[at + 1 :]),
        *(f"{text}=", f"{text}A", f" {text}", f"{text}\n"),
    ):
        read_error(KEY, BOUND, damaged)


@given(st.text(max_size=200))
def test_any_other_text_is_an_invalid_cursor(text):
    read_error(KEY, BOUND, text)


def test_every_bit_of_a_cursor_is_significant():
    text = cursor.write(KEY, BOUND, PagePosition((1, 1, 0, "o", "tea"), 2, 3))
    for at, letter in enumerate(text):
        for replacement in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/":
            if replacement != letter:
                read_error(KEY, BOUND, text[:at] + replacement + text[at + 1 :])


@pytest.mark.parametrize(
    "bound_to",
    [("bob", *BOUND[1:]), ("ann", "order", *BOUND[2:]), ("ann", None, (1, None, None), None), ("ann",),
     ("ann", None, (None, None, "card"), None), ("ann", None, (None, None, None), 5)],
)  # fmt: skip
def test_a_cursor_of_another_user_or_other_parameters_has_the_same_error_as_a_damaged_one(bound_to):
    position = PagePosition((1, 1, 0, "o", "tea"), 2, 3)
    text = cursor.write(KEY, BOUND, position)
    assert read_error(KEY, bound_to, text).detail == read_error(KEY, BOUND, "damaged").detail


def test_only_workers_of_the_same_app_share_their_cursors():
    text = cursor.write(KEY, BOUND, PagePosition((1, 1, 0, "o", "tea"), 2, 3))
    assert cursor.signing_key(Settings(id="lately")) == KEY
    for settings in (Settings(id="other"), Settings(cursor_secret="s3cret")):
        read_error(cursor.signing_key(settings), BOUND, text)


def test_a_cursor_of_another_version_is_invalid():
    content = cursor._encode([1, 2])
    signed = cursor._sign(KEY, BOUND, content) + content
    read_error(KEY, BOUND, cursor.base64.urlsafe_b64encode(signed).decode().rstrip("="))
