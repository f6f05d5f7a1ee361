"""Output of the commands: findings, differences and progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
import msgspec

from domain.text import printable

if TYPE_CHECKING:
    from domain.differences import PurchaseDifference
    from source.findings import Finding

#: Interval between two progress lines, s.
TERMINAL_INTERVAL_S, LOG_INTERVAL_S = 0.2, 5.0
BAR_COLUMNS = 20


def echo(text: str = "", *, err: bool = False) -> None:
    """Print a line; characters that a terminal would execute or hide are escaped."""
    click.echo(printable(text), err=err)


def print_findings(findings: Iterable[Finding], as_json: bool) -> bool:
    """Print findings as they arrive, or all as one JSON object; return whether one has failed."""
    printed = []
    for finding in findings:
        printed.append(finding)
        if not as_json:
            fix = f"\n        fix: {finding.fix}" if finding.fix else ""
            echo(f"{finding.result:8}{finding.name}: {finding.detail}{fix}")
    has_failed = any(finding.result == "failed" for finding in printed)
    if as_json:
        echo(msgspec.json.encode({"ok": not has_failed, "findings": printed}).decode())
    return has_failed


def encode_difference(difference: PurchaseDifference, side: str) -> str:
    """Encode a difference as JSON.

    `side` is the field name of the content that the table should have.
    """
    fields = {side if name == "database" else name: value for name, value in difference.to_dict().items()}
    return msgspec.json.encode(fields).decode()


def format_difference(difference: PurchaseDifference, source: str) -> str:
    """Format a difference between the table and `source` as one line."""
    from domain.differences import compared_fields

    order_id, product_name = difference.identity
    prefix = f"{difference.kind:8} user {difference.user_id}, order {order_id}, {product_name}: "
    expected, actual = compared_fields(difference.row), compared_fields(difference.purchase)
    if expected is not None and actual is not None:
        return prefix + "; ".join(
            f"{name} {value} in {source}, {actual[name]} in the table"
            for name, value in expected.items()
            if value != actual[name]
        )
    fields = expected or actual or {}
    return f"{prefix}{fields.get('price')}, {fields.get('ordered_at')}, only in {'the table' if actual else source}"


class ProgressLine:
    """Prints progress to stderr: one updated line on a terminal, else some lines."""

    def __init__(self, unit: str = "rows") -> None:
        self._unit = unit
        self._started_at = self._printed_at = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, rows: int, total: int) -> None:
        now = time.monotonic()
        if now - self._printed_at < (TERMINAL_INTERVAL_S if self._is_terminal else LOG_INTERVAL_S):
            return
        self._printed_at = now
        line = f"{rows:,} of about {total:,} {self._unit}, {rows / (now - self._started_at):,.0f} {self._unit}/s"
        if self._is_terminal:
            filled = round(BAR_COLUMNS * rows / total)
            click.echo(f"\r[{'#' * filled}{'.' * (BAR_COLUMNS - filled)}] {line} ", err=True, nl=False)
        else:
            click.echo(line, err=True)
