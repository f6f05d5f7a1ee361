"""Pure functions for the calendar of a time zone: moments, and the buckets of a span of time.

A bucket begins at an hour, a day or a week of local time. The day on which clocks are set forward has 23 hours; the day
on which they are set back has 25, and two of them have the same name.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.errors import BadReport
from domain.values import microseconds

HOUR, DAY, WEEK = UNITS = ("hour", "day", "week")
#: Limit of the rows of a report.
MAX_BUCKETS = 100_000

_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Bucket(NamedTuple):
    """A span from `since` until before `until`, in microseconds since 1970 UTC; `name` is for people."""

    since: int
    until: int
    name: str


def zone(name: str) -> ZoneInfo:
    """Find a time zone by its IANA name. Raises BadReport."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadReport(f"{name!r} is not a time zone: use an IANA name, such as UTC or Europe/Berlin") from None


def moment(text: str, tz: tzinfo, option: str) -> int:
    """Parse a date (midnight in `tz`) or an RFC 3339 moment to microseconds since 1970. Raises BadReport."""
    try:
        if _DATE.fullmatch(text):
            return _midnight(date.fromisoformat(text), tz)
        if _MOMENT.fullmatch(text):
            return microseconds(_parse_moment(text))
    except (ValueError, OverflowError):
        pass
    raise BadReport(
        f"{option}: {text!r} is neither a date such as 2026-01-31 nor a moment such as 2026-01-31T08:00:00Z or "
        "2026-01-31T08:00:00+02:00, in the years 2 to 9998"
    )


def span(since: str, until: str, tz: tzinfo) -> tuple[int, int]:
    """Parse `--from` and `--to`; the end is exclusive. Raises BadReport."""
    begins, ends = moment(since, tz, "--from"), moment(until, tz, "--to")
    if begins > ends:
        raise BadReport(f"--from {since} is later than --to {until}: exchange them")
    return begins, ends


def is_date_or_moment(text: str) -> bool:
    """Return True if the text has the form of a date or a moment."""
    return bool(_DATE.fullmatch(text) or _MOMENT.fullmatch(text))


def buckets(since: int, until: int, unit: str | None, tz: tzinfo) -> list[Bucket]:
    """Cut a span at the hours, days or weeks (from Monday) of `tz`; the first and last bucket may be partial.

    Without a unit the span is one bucket. An empty span has none. Raises BadReport for more than MAX_BUCKETS.
    """
    if since >= until:
        return []
    if unit is None:
        return [Bucket(since, until, "")]
    min_bucket_s = {HOUR: 3600, DAY: 82_800, WEEK: 600_000}[unit]
    if (until - since) // 1_000_000 // min_bucket_s > MAX_BUCKETS:
        raise BadReport(
            f"the report would have more than {MAX_BUCKETS:,} rows: choose a shorter span, or --by day or --by week"
        )
    cut, start = [], since
    while start < until:
        local = _local(start, tz)
        end = min(_next_boundary(start, local, unit, tz), until)
        cut.append(Bucket(start, end, _bucket_name(local, unit)))
        start = end
    return cut


def format_moment(at: int, tz: tzinfo) -> str:
    """Format a moment (microseconds since 1970) as RFC 3339 with the offset of `tz`, Z for UTC."""
    return _local(at, tz).isoformat().replace("+00:00", "Z")


def _parse_moment(text: str) -> datetime:
    # Python 3.10 requires a numeric offset, and three or six digits of a fraction.
    text = text.replace("Z", "+00:00")
    body, offset = text[:-6], text[-6:]
    seconds, _, fraction = body.partition(".")
    parsed = datetime.fromisoformat(f"{seconds}{offset}").astimezone(timezone.utc)
    if not 2 <= parsed.year <= 9998:
        raise ValueError
    return parsed.replace(microsecond=int(fraction.ljust(6, "0") or 0))


def _local(at: int, tz: tzinfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=at)).astimezone(tz)


def _midnight(day: date, tz: tzinfo) -> int:
    if not 2 <= day.year <= 9998:
        raise ValueError
    # If clocks are set forward at midnight, this is the moment of the change.
    return microseconds(datetime.combine(day, time(), tzinfo=tz))


def _next_boundary(at: int, local: datetime, unit: str, tz: tzinfo) -> int:
    """Beginning of the next hour, day or week."""
    if unit == HOUR:
        return at + 3_600_000_000 - ((local.minute * 60 + local.second) * 1_000_000 + local.microsecond)
    days = 1 if unit == DAY else 7 - local.weekday()
    day = local.date()
    while True:
        day += timedelta(days=days)
        ends = _midnight(day, tz)
        # Some countries skipped a whole day when they moved across the date line.
        if ends > at:
            return ends
        days = 1


def _bucket_name(local: datetime, unit: str) -> str:
    if unit == HOUR:
        return local.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes").replace("+00:00", "Z")
    day = local.date()
    return (day if unit == DAY else day - timedelta(days=day.weekday())).isoformat()
