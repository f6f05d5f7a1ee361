"""The form of the log: text or a JSON object per line, with masked values of orders.

Libraries repeat messages hundreds of times a second while a server is away; most of these
repetitions are dropped.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import datetime, timezone

from app.settings import Settings
from domain.events import trace_id_of
from domain.text import printable

MASK = "***"
#: The fields of `extra` that a log call can set about its event.
FIELDS = ("topic", "partition", "offset", "order_id", "trace_id")

#: The interval in which a library can log the same message once. Lately's own loggers have no such
#: limit.
REPEAT_AFTER_S = 10.0
LIBRARIES = ("aiokafka", "faust", "kafka", "mode")
#: The logger of everything that the process prints, also of tracebacks, line by line.
_PRINTED = "mode.redirect"
#: The number of format strings that are tracked, and of messages for each: one for each partition
#: would be many.
_MAX_FORMATS, _MAX_MESSAGES = 1_000, 20

# The errors of MySQL and the reasons of dead letters quote values.
_QUOTED = re.compile(r"\b((?:entry|value|type|dataschema):? )(['\"])(?:(?!\2)[^\\]|\\.)*\2?", re.IGNORECASE)


def mask_values(text: str) -> str:
    """Return the text with *** in place of the values that it quotes."""
    return _QUOTED.sub(rf"\1\2{MASK}\2", text)


def event_fields(order_id: object = None, traceparent: str | None = None, **location: object) -> dict[str, object]:
    """Return the `extra` of a log call about an event; fields without a value are left out."""
    fields = {
        **location,
        "order_id": None if order_id is None else str(order_id),
        "trace_id": trace_id_of(traceparent),
    }
    return {name: value for name, value in fields.items() if value is not None}


class MaskingFormatter(logging.Formatter):
    """Formats a record as text with `text_formatter`, or as a JSON object if that is None.

    Quoted values are masked, except with `with_personal_data`.
    """

    def __init__(self, text_formatter: logging.Formatter | None, with_personal_data: bool) -> None:
        super().__init__()
        self._text_formatter, self._with_personal_data = text_formatter, with_personal_data

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        repetitions: int = getattr(record, "again", 0)
        if self._text_formatter is not None:
            text = printable(self._masked(self._text_formatter.format(record)))
            if repetitions:
                return f"{text.rstrip()} (and {repetitions:,} times more since it was logged last)"
            return text
        logged_at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": logged_at.replace("+00:00", "Z"), "level": record.levelname.lower(), "logger": record.name,
            "message": self._masked(record.getMessage()).rstrip(),
        }  # fmt: skip
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if repetitions:
            line["again"] = repetitions
        if record.exc_info:
            line["exception"] = self._masked(self.formatException(record.exc_info))
        return printable(json.dumps(line, ensure_ascii=False, default=str))

    def _masked(self, text: str) -> str:
        return text if self._with_personal_data else mask_values(text)


#: The time of the last message that passed, and the number of messages dropped since then.
_Repetition = tuple[float, int]


class RepetitionFilter(logging.Filter):
    """Passes each warning or error of a library once in REPEAT_AFTER_S, and counts the others.

    While Kafka is away each of its clients logs ten times a second. The first messages of a format
    string are tracked one by one, the others together. Records with a traceback and everything that
    the process prints always pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        #: Logger and format string -> message, None for all others -> its repetition.
        self._repetitions: dict[tuple[str, str], dict[str | None, _Repetition]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged."""
        is_limited = record.name.partition(".")[0] in LIBRARIES and record.name != _PRINTED
        if record.levelno < logging.WARNING or record.exc_info or not is_limited:
            return True
        try:
            message: str | None = record.getMessage()
            now = self._clock()
        except Exception:
            return True  # the handler reports the error of the format string
        tracked = self._tracked((record.name, str(record.msg)))
        if message not in tracked and len(tracked) >= _MAX_MESSAGES:
            _merge_expired(tracked, now)
            message = message if len(tracked) < _MAX_MESSAGES else None
        passed_at, dropped = tracked.get(message, (now - REPEAT_AFTER_S, 0))
        if now - passed_at < REPEAT_AFTER_S:
            tracked[message] = passed_at, dropped + 1
            return False
        tracked[message] = now, 0
        record.again = dropped
        return True

    def _tracked(self, format_key: tuple[str, str]) -> dict[str | None, _Repetition]:
        if format_key not in self._repetitions and len(self._repetitions) >= _MAX_FORMATS:
            self._repetitions.clear()
        return self._repetitions.setdefault(format_key, {})


def _merge_expired(tracked: dict[str | None, _Repetition], now: float) -> None:
    """Count the messages that passed longer ago than REPEAT_AFTER_S together with the others."""
    for message, (passed_at, dropped) in list(tracked.items()):  # a copy: other threads log meanwhile
        if message is not None and now - passed_at >= REPEAT_AFTER_S:
            others_passed_at, others_dropped = tracked.get(None, (now - REPEAT_AFTER_S, 0))
            tracked[None] = others_passed_at, others_dropped + dropped
            tracked.pop(message, None)


def configure_handlers(root: logging.Logger, settings: Settings) -> None:
    """Set the format of all handlers of `root`, and drop the repetitions of libraries."""
    for handler in root.handlers:
        handler.addFilter(RepetitionFilter())
        text_formatter = None if settings.log == "json" else handler.formatter or logging.Formatter()
        handler.setFormatter(MaskingFormatter(text_formatter, settings.log_pii))
