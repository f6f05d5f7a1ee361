"""What the log looks like: text or a JSON object per line, and without what it may quote of the shop's data."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timezone

from app.config import Settings
from app.models import trace_id_of

MASK = "***"
#: What a log call may say in `extra` of the event that it is about.
FIELDS = ("topic", "partition", "offset", "order_id", "trace_id")

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
        if self._plain is not None:
            return self._masked(self._plain.format(record))
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        said = {
            "time": at.replace("+00:00", "Z"), "level": record.levelname.lower(), "logger": record.name,
            "message": self._masked(record.getMessage()).rstrip(),
        }  # fmt: skip
        said |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            said["exception"] = self._masked(self.formatException(record.exc_info))
        return json.dumps(said, ensure_ascii=False, default=str)

    def _masked(self, text: str) -> str:
        return text if self._personal else mask(text)


def dress(root: logging.Logger, settings: Settings) -> None:
    """Give all handlers of `root` the form that the settings ask for."""
    for handler in root.handlers:
        plain = None if settings.log == "json" else handler.formatter or logging.Formatter()
        handler.setFormatter(Formatter(plain, bool(settings.log_pii)))
