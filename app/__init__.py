"""Lately: what each user bought lately. `faust -A app worker` finds the app here.

The attribute `app` is lazy, so that importing `domain.purchases` or `domain.events` starts nothing.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.main import app

__all__ = ["app"]


def __getattr__(name: str) -> object:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from app.errors import BadSetting

    try:
        from app.main import app
    except BadSetting as exc:
        print(f"lately: {exc}", file=sys.stderr)
        raise SystemExit(2) from None
    return app
