"""No text from outside controls a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.text import printable


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("\x1b]0;title\x07", r"\u001b]0;title\u0007"),
        ("\x9b31m", r"\u009b31m"),
        ("a\rb\x7f", r"a\u000db\u007f"),
        ("user\u202etxt.exe", r"user\u202etxt.exe"),
        ("\ud800", r"\ud800"),
        ("Käse 手机 😀\tx\n", "Käse 手机 😀\tx\n"),
    ],
)
def test_characters_that_a_terminal_would_execute_or_hide_are_escaped(text: str, printed: str):
    assert printable(text) == printed


@given(st.text(st.characters(categories=["Cc", "Cf", "Cs", "L", "S"])))
def test_what_is_printed_contains_no_control_character(text: str):
    controls = {character for character in printable(text) if unicodedata.category(character) in ("Cc", "Cs")}
    assert controls <= {"\n", "\t"}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_stays_the_same_json(text: str):
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text
