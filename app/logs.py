"""What the log looks like: text or a JSON object per line, without what it may quote of the shop's data, and without
what libraries say hundreds of times a second while a server is away."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import datetime, timezone

from app.settings import Settings
from domain.events import trace_id_of

MASK = "***"
#: What a log call may say in `extra` of the event that it is about.
FIELDS = ("topic", "partition", "offset", "order_id", "trace_id")

#: A library may complain of one thing once in so many seconds; Lately's own loggers say all that they have to say.
SELDOM_S = 10.0
LIBRARIES = ("aiokafka", "faust", "kafka", "mode")
#: What the process prints is logged under this name, also tracebacks, line by line.
_PRINTED = "mode.redirect"
#: So many wordings are told apart, and of each so many complaints at a time: one about each partition would be many.
_WORDINGS, _COMPLAINTS = 1_000, 20

# MySQL quotes values in its errors, and so do the reasons of dead letters.
_QUOTED = re.compile(r"\b((?:entry|value|type|dataschema):? )(['\"])(?:(?!\2)[^\\]|\\.)*\2?", re.IGNORECASE)


def mask(text: str) -> str:
    """The same without the values that it quotes."""
    return _QUOTED.sub(rf"\1\2{MASK}\2", text)


def about(order_id: object = None, traceparent: str | None = None, **place: object) -> dict[str, object]:
    """The `extra` of a log call about an event: what is known of it."""
    known = None if order_id is None else str(order_id)
    said = {**place, "order_id": known, "trace_id": trace_id_of(traceparent)}
    return {name: value for name, value in said.items() if value is not None}


class Formatter(logging.Formatter):
    """One line for each record, or one JSON object; values that it quotes are masked unless `personal`."""

    def __init__(self, plain: logging.Formatter | None, personal: bool) -> None:
        super().__init__()
        self._plain, self._personal = plain, personal

    def format(self, record: logging.LogRecord) -> str:
        again = getattr(record, "again", 0)
        if self._plain is not None:
            text = self._masked(self._plain.format(record))
            return f"{text.rstrip()} (and {again:,} times more since it was said last)" if again else text
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        said = {
            "time": at.replace("+00:00", "Z"), "level": record.levelname.lower(), "logger": record.name,
            "message": self._masked(record.getMessage()).rstrip(),
        }  # fmt: skip
        said |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if again:
            said["again"] = again
        if record.exc_info:
            said["exception"] = self._masked(self.formatException(record.exc_info))
        return json.dumps(said, ensure_ascii=False, default=str)

    def _masked(self, text: str) -> str:
        return text if self._personal else mask(text)


class Seldom(logging.Filter):
    """Lets pass what a library complains of, a warning or worse, once in SELDOM_S, with the number of times since then.

    While Kafka is away each of its clients complains ten times a second. Of one wording the first few complaints are
    told apart, the others count as one. What has a traceback always passes, and so does what the process prints.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        #: Wording -> complaint, None for all others: when it passed last, and how often it was held back since.
        self._said: dict[tuple[str, str], dict[str | None, tuple[float, int]]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name.partition(".")[0] not in LIBRARIES or record.name == _PRINTED
        if record.levelno < logging.WARNING or record.exc_info or ours:
            return True
        try:
            complaint, now = record.getMessage(), self._clock()
        except Exception:
            return True  # whoever writes it says what is wrong with it
        said = self._of((record.name, str(record.msg)))
        if complaint not in said and len(said) >= _COMPLAINTS:
            _make_room(said, now)
            complaint = complaint if len(said) < _COMPLAINTS else None
        last, held_back = said.get(complaint, (now - SELDOM_S, 0))
        if now - last < SELDOM_S:
            said[complaint] = last, held_back + 1
            return False
        said[complaint] = now, 0
        record.again = held_back
        return True

    def _of(self, wording: tuple[str, str]) -> dict[str | None, tuple[float, int]]:
        if wording not in self._said and len(self._said) >= _WORDINGS:
            self._said.clear()
        return self._said.setdefault(wording, {})


def _make_room(said: dict[str | None, tuple[float, int]], now: float) -> None:
    """Count those that passed longer ago than SELDOM_S among the others."""
    for complaint, (last, held_back) in list(said.items()):  # a copy: other threads log meanwhile
        if complaint is not None and now - last >= SELDOM_S:
            since, others = said.get(None, (now - SELDOM_S, 0))
            said[None] = since, others + held_back
            said.pop(complaint, None)


def dress(root: logging.Logger, settings: Settings) -> None:
    """Give all handlers of `root` the form that the settings ask for, and hold back what libraries repeat."""
    for handler in root.handlers:
        handler.addFilter(Seldom())
        plain = None if settings.log == "json" else handler.formatter or logging.Formatter()
        handler.setFormatter(Formatter(plain, bool(settings.log_pii)))
