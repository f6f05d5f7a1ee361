"""Deprecated since 0.2.0, removed in 0.3.0: import `decode_events` from `agents.decode`."""

import warnings

from agents.decode import decode_events as readable

__all__ = ["readable"]

warnings.warn("agents.reading is deprecated: import decode_events from agents.decode", DeprecationWarning, stacklevel=2)
