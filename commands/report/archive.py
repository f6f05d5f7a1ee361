"""Reports that were kept as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from app.errors import BadReport
from commands.report import model
from commands.report.model import Report


def read(path: Path) -> Report:
    """A report from its JSON document. Raises BadReport."""
    try:
        return model.decode(path.read_bytes(), str(path))
    except OSError as exc:
        raise BadReport(f"{path} cannot be read ({exc.strerror})") from None


def reports(folder: Path) -> Iterator[tuple[Path, Report]]:
    """All reports of a folder by their names; other files are left out. Raises BadReport when there is no folder."""
    if not folder.is_dir():
        raise BadReport(f"there is no folder {folder}: give one, or set LATELY_REPORT_DIR")
    for path in sorted(folder.glob("*.json")):
        try:
            yield path, read(path)
        except BadReport:
            continue


def line(path: Path, report: Report) -> str:
    """A kept report for people."""
    said = report.header
    return f"{path.name:36}{said.since} to {said.until}, {said.purchases} purchases, as of {said.as_of or 'MySQL'}"


def as_json(path: Path, report: Report) -> str:
    """The same for programs."""
    return msgspec.json.encode({"file": str(path), **msgspec.to_builtins(report.header)}).decode()
