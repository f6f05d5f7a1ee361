"""Text from outside that goes to a terminal or a log."""

from __future__ import annotations

import re

#: Control characters except line feed and tab, and characters that change the direction of text or
#: are invisible. A terminal would execute the first, and show the others as something else.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return the text with \uXXXX in place of characters that are not safe to print; JSON stays the same JSON."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
