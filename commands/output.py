"""How commands show findings and progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from source.check import Finding


def print_findings(findings: Iterable[Finding], as_json: bool) -> bool:
    """Print them; whether something has to be mended."""
    found = []
    for one in findings:
        found.append(one)
        if not as_json:
            click.echo(f"{one.result:8}{one.name}: {one.detail}" + (f"\n        fix: {one.fix}" if one.fix else ""))
    failed = any(one.result == "failed" for one in found)
    if as_json:
        click.echo(msgspec.json.encode({"ok": not failed, "findings": found}).decode())
    return failed


def format_difference(shown: dict, side: str, name: str) -> str:
    """A difference between the table and its other side, which is called `name`, on one line."""
    what = f"{shown['kind']:8} user {shown['user_id']}, order {shown['order_id']}, {shown['product_name']}: "
    other, table = shown[side], shown["table"]
    if other is None or table is None:
        said = other or table
        return f"{what}{said['price']}, {said['ordered_at']}, only in {'the table' if other is None else name}"
    pairs = [f"{field} {other[field]} in {name}, {table[field]} in the table" for field in other
             if other[field] != table[field]]  # fmt: skip
    return what + "; ".join(pairs)


class ProgressLine:
    """Shows how far a command is: a line that is written over on a terminal, a line now and then elsewhere."""

    def __init__(self, what: str = "rows") -> None:
        self._what = what
        self._begun = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __call__(self, rows: int, total: int) -> None:
        now = time.monotonic()
        if now - self._shown < (0.2 if self._terminal else 5.0):
            return
        self._shown = now
        line = f"{rows:,} of about {total:,} {self._what}, {rows / (now - self._begun):,.0f} {self._what}/s"
        if self._terminal:
            filled = round(20 * rows / total)
            click.echo(f"\r[{'#' * filled}{'.' * (20 - filled)}] {line} ", err=True, nl=False)
        else:
            click.echo(line, err=True)
