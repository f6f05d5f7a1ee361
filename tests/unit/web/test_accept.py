"""The media type that a header Accept selects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.http.accept import choose_media_type

JSON, HTML = "application/json", "text/html"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("APPLICATION/JSON ; charset=utf-8", JSON),
        ("application/*", JSON),
        ("text/html", HTML),
        ("text/*", HTML),
        ("text/html, application/json", JSON),
        ("text/html, application/json;q=0.9", HTML),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", HTML),
        ("text/html;q=0, */*", JSON),
        ("application/json;q=0, */*;q=0.1", HTML),
        ("image/png", None),
        ("image/*;q=0.5, application/xml", None),
        ("*/*;q=0", None),
        ("application/json;q=0.000", None),
        ("nonsense", JSON),
        (", ,", JSON),
        ("nonsense, text/html", HTML),
        ("application/json;q=nonsense", JSON),
    ],
)
def test_the_preferred_media_type_is_chosen(accept, chosen):
    assert choose_media_type(accept, (JSON, HTML)) == chosen


@given(st.text())
def test_any_header_is_parsed(accept):
    assert choose_media_type(accept, (JSON, HTML)) in (JSON, HTML, None)
