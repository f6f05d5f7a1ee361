"""Deprecated since 0.2.0, removed in 0.3.0: import the kinds of events from `domain.events`."""

import warnings

from domain.events import ERASED, REMOVED

__all__ = ["ERASED", "REMOVED"]

warnings.warn("app.models is deprecated: import them from domain.events", DeprecationWarning, stacklevel=2)
