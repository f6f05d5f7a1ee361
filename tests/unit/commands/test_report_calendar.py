"""Days, hours and weeks are those of the clocks on the wall, in every zone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import EX_USAGE, BadReport
from commands.report.calendar import (
    DAY,
    HOUR,
    UNITS,
    WEEK,
    buckets,
    format_moment,
    is_date_or_moment,
    moment,
    span,
    zone,
)
from domain.values import microseconds

UTC, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
HOUR_US = 3_600_000_000


def hours(since: str, until: str, tz: ZoneInfo, unit: str = DAY) -> list[tuple[str, float]]:
    """Name and length of each bucket."""
    return [(one.name, (one.until - one.since) / HOUR_US) for one in buckets(*span(since, until, tz), unit, tz)]


def test_days_have_23_24_or_25_hours():
    assert hours("2026-03-28", "2026-03-31", BERLIN) == [("2026-03-28", 24), ("2026-03-29", 23), ("2026-03-30", 24)]
    assert hours("2026-10-24", "2026-10-27", BERLIN) == [("2026-10-24", 24), ("2026-10-25", 25), ("2026-10-26", 24)]
    assert [length for _, length in hours("2026-03-28", "2026-03-31", UTC)] == [24, 24, 24]


def test_of_two_hours_with_the_same_name_each_is_a_row():
    names = [name for name, _ in hours("2026-10-25", "2026-10-26", BERLIN, HOUR)]
    assert len(names) == 25
    assert names[2:4] == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]
    assert len(hours("2026-03-29", "2026-03-30", BERLIN, HOUR)) == 23
    assert hours("2026-01-31", "2026-02-01", UTC, HOUR)[8] == ("2026-01-31T08:00Z", 1)


def test_zones_with_their_own_ideas():
    # The clocks are put forward at midnight: the day begins at one.
    assert hours("2018-11-04", "2018-11-05", ZoneInfo("America/Sao_Paulo")) == [("2018-11-04", 23)]
    # By half an hour.
    assert hours("2026-04-05", "2026-04-06", ZoneInfo("Australia/Lord_Howe")) == [("2026-04-05", 24.5)]
    # Samoa had no 30th of December 2011.
    assert [name for name, _ in hours("2011-12-29", "2012-01-01", ZoneInfo("Pacific/Apia"))] == [
        "2011-12-29", "2011-12-31",
    ]  # fmt: skip
    # Nepal's hours begin 45 minutes behind those of UTC.
    first = buckets(*span("2026-01-31T00:00:00Z", "2026-01-31T02:00:00Z", UTC), HOUR, ZoneInfo("Asia/Kathmandu"))
    assert [one.name[-11:] for one in first] == ["05:00+05:45", "06:00+05:45", "07:00+05:45"]


def test_weeks_begin_on_monday_and_the_first_and_last_may_be_parts():
    assert hours("2026-01-31", "2026-02-10", UTC, WEEK) == [("2026-01-26", 48), ("2026-02-02", 168), ("2026-02-09", 24)]


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone.utc)),
    st.integers(0, 40 * 24 * HOUR_US),
    st.sampled_from(UNITS),
    st.sampled_from(sorted(available_timezones())).map(ZoneInfo),
)
def test_buckets_cover_the_span_without_gaps_and_are_of_one_day_each(since: datetime, length: int, unit: str, tz):
    begins, ends = microseconds(since), microseconds(since) + length
    found = buckets(begins, ends, unit, tz)
    assert [one.since for one in found] == [begins, *(one.until for one in found[:-1])][: len(found)]
    assert all(one.since < one.until for one in found)
    assert not found or found[-1].until == ends
    if unit == DAY:
        names = [one.name for one in found]
        assert names == sorted(set(names))
        begin = [(EPOCH + timedelta(microseconds=one.since)).astimezone(tz).date() for one in found]
        assert names == [day.isoformat() for day in begin]


def test_without_a_unit_there_is_one_bucket_and_in_an_empty_span_none():
    assert len(buckets(0, 5, None, UTC)) == 1
    assert buckets(5, 5, None, UTC) == buckets(5, 5, DAY, UTC) == []


def test_moments_are_dates_of_the_zone_or_name_their_own():
    eight = microseconds(datetime(2026, 1, 31, 8, tzinfo=timezone.utc))
    assert moment("2026-01-31T08:00:00Z", BERLIN, "--from") == eight
    assert moment("2026-01-31T09:00+01:00", UTC, "--from") == eight
    assert moment("2026-01-31T08:00:00.5Z", UTC, "--from") == eight + 500_000
    assert moment("2026-01-31T08:00:00.000001Z", UTC, "--from") == eight + 1
    assert moment("2026-01-31", BERLIN, "--from") == eight - 9 * HOUR_US
    assert format_moment(eight, BERLIN) == "2026-01-31T09:00:00+01:00"
    assert format_moment(eight + 5, UTC) == "2026-01-31T08:00:00.000005Z"


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-1-31", "2026-02-30", "2026-01-31T08:00:00", "2026-01-31 08:00:00Z", "20260131",
     "2026-01-31T25:00:00Z", "2026-01-31T08:00:00+25:00", "0001-01-01", "9999-12-31", "9999-12-31T23:59:59-12:00",
     "2026-01-31T08:00:00.1234567Z", "2026-W05"],
)  # fmt: skip
def test_what_is_no_moment_is_refused_with_an_example(text: str):
    with pytest.raises(BadReport, match="2026-01-31T08:00:00Z") as caught:
        moment(text, UTC, "--from")
    assert caught.value.exit_code == EX_USAGE
    assert str(caught.value).startswith("--from: ")


def test_a_span_that_ends_before_it_begins_an_unknown_zone_and_too_many_rows_are_refused():
    with pytest.raises(BadReport, match="exchange"):
        span("2026-02-01", "2026-01-31", UTC)
    for name in ("Europe/Atlantis", "", "../etc/passwd", "\x00"):
        with pytest.raises(BadReport, match="IANA"):
            zone(name)
    with pytest.raises(BadReport, match="--by day"):
        buckets(*span("1990-01-01", "2026-01-01", UTC), HOUR, UTC)
    assert is_date_or_moment("2026-01-31")
    assert not is_date_or_moment("0:12,1:3")
