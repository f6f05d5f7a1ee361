"""The selection of events by the options of `lately replay`; invalid options are refused."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from app.errors import BadSource, UnknownTarget
from app.kafka.order_log import EventSelection
from commands.replay.command import _selection, replay


def test_events_are_selected_by_user_order_time_or_offset():
    assert _selection(None, None, None, None) == EventSelection()
    assert _selection("ann", "o1", None, "3:1500") == EventSelection("ann", "o1", None, (3, 1500))
    assert _selection(None, None, "1970-01-02T00:00:00.5Z", None).since_ms == 86_400_500


@pytest.mark.parametrize(
    "words", [["--from", "x"], ["--from", "-1:0"], ["--since", "1h", "--from", "0:1"], ["--into", "x"]]
)
def test_invalid_options_are_a_usage_error(words):
    assert CliRunner().invoke(replay, words).exit_code == 2


@pytest.mark.parametrize(("words", "error"), [(["--since", "then"], BadSource), (["--user", ""], UnknownTarget)])
def test_invalid_values_are_named(words, error):
    result = CliRunner().invoke(replay, words)
    assert (type(result.exception), result.exception.exit_code) == (error, 2)
