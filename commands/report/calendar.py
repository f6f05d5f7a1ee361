"""Pure functions for the days of a time zone: moments, and the buckets that a span of time is cut into.

A bucket begins where the clocks on the wall begin an hour, a day or a week. So the day on which they are put forward
has 23 hours, and the one on which they are put back has 25, of which two have the same name.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.errors import BadReport
from domain.values import microseconds

HOUR, DAY, WEEK = UNITS = ("hour", "day", "week")
#: More rows than that help nobody.
MOST_BUCKETS = 100_000

_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Bucket(NamedTuple):
    """From `since` until before `until`, in microseconds since 1970 UTC; `name` is for people."""

    since: int
    until: int
    name: str


def zone(name: str) -> ZoneInfo:
    """The time zone of this IANA name. Raises BadReport."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadReport(f"{name!r} is not a time zone: give its IANA name, such as UTC or Europe/Berlin") from None


def moment(text: str, tz: tzinfo, option: str) -> int:
    """A date, which begins at midnight in `tz`, or RFC 3339, as microseconds since 1970. Raises BadReport."""
    try:
        if _DATE.fullmatch(text):
            return _midnight(date.fromisoformat(text), tz)
        if _MOMENT.fullmatch(text):
            return microseconds(_read(text))
    except (ValueError, OverflowError):
        pass
    raise BadReport(
        f"{option}: {text!r} is neither a date such as 2026-01-31 nor a moment such as 2026-01-31T08:00:00Z or "
        "2026-01-31T08:00:00+02:00, in the years 2 to 9998"
    )


def span(since: str, until: str, tz: tzinfo) -> tuple[int, int]:
    """Both ends of `--from` and `--to`; the second is not part of it. Raises BadReport."""
    begins, ends = moment(since, tz, "--from"), moment(until, tz, "--to")
    if begins > ends:
        raise BadReport(f"--from {since} is behind --to {until}: exchange them")
    return begins, ends


def is_moment(text: str) -> bool:
    """Whether a text has the form of a date or a moment."""
    return bool(_DATE.fullmatch(text) or _MOMENT.fullmatch(text))


def buckets(since: int, until: int, unit: str | None, tz: tzinfo) -> list[Bucket]:
    """The span cut at the beginnings of hours, days or weeks (from Monday) of `tz`; the first and last may be parts.

    Without a unit it is one bucket. An empty span has none. Raises BadReport where there would be too many.
    """
    if since >= until:
        return []
    if unit is None:
        return [Bucket(since, until, "")]
    least = {HOUR: 3600, DAY: 82_800, WEEK: 600_000}[unit]
    if (until - since) // 1_000_000 // least > MOST_BUCKETS:
        raise BadReport(
            f"that would be more than {MOST_BUCKETS:,} rows: choose a shorter span, or --by day or --by week"
        )
    found, at = [], since
    while at < until:
        local = _local(at, tz)
        ends = min(_next(at, local, unit, tz), until)
        found.append(Bucket(at, ends, _name(local, unit)))
        at = ends
    return found


def shown(at: int, tz: tzinfo) -> str:
    """A moment as RFC 3339 with the offset of `tz`, Z where that is UTC."""
    return _local(at, tz).isoformat().replace("+00:00", "Z")


def _read(text: str) -> datetime:
    # Python 3.10 wants the offset as numbers, and three or six digits of a fraction.
    text = text.replace("Z", "+00:00")
    body, offset = text[:-6], text[-6:]
    whole, _, fraction = body.partition(".")
    read = datetime.fromisoformat(f"{whole}{offset}").astimezone(timezone.utc)
    if not 2 <= read.year <= 9998:
        raise ValueError
    return read.replace(microsecond=int(fraction.ljust(6, "0") or 0))


def _local(at: int, tz: tzinfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=at)).astimezone(tz)


def _midnight(day: date, tz: tzinfo) -> int:
    if not 2 <= day.year <= 9998:
        raise ValueError
    # Where the clocks are put forward at midnight this is the moment at which they are.
    return microseconds(datetime.combine(day, time(), tzinfo=tz))


def _next(at: int, local: datetime, unit: str, tz: tzinfo) -> int:
    """Where the next hour, day or week begins."""
    if unit == HOUR:
        return at + 3_600_000_000 - ((local.minute * 60 + local.second) * 1_000_000 + local.microsecond)
    days = 1 if unit == DAY else 7 - local.weekday()
    day = local.date()
    while True:
        day += timedelta(days=days)
        ends = _midnight(day, tz)
        # Some countries left out a whole day when they changed sides of the date line.
        if ends > at:
            return ends
        days = 1


def _name(local: datetime, unit: str) -> str:
    if unit == HOUR:
        return local.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes").replace("+00:00", "Z")
    day = local.date()
    return (day if unit == DAY else day - timedelta(days=day.weekday())).isoformat()
