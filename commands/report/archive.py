"""Reports that are stored as JSON files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from app.errors import BadReport
from commands.report import model
from commands.report.model import Report


def read(path: Path) -> Report:
    """Read a report. Raises BadReport."""
    try:
        return model.decode(path.read_bytes(), str(path))
    except OSError as exc:
        raise BadReport(f"{path} cannot be read ({exc.strerror})") from None


def stored_reports(folder: Path) -> Iterator[tuple[Path, Report]]:
    """Iterate over the reports in a folder by name, and skip other files. Raises BadReport if the folder is missing."""
    if not folder.is_dir():
        raise BadReport(f"the folder {folder} does not exist: choose another one, or set LATELY_REPORT_DIR")
    for path in sorted(folder.glob("*.json")):
        try:
            yield path, read(path)
        except BadReport:
            continue


def summary_line(path: Path, report: Report) -> str:
    """Summary of a stored report for people."""
    header = report.header
    return (
        f"{path.name:36}{header.since} to {header.until}, {header.purchases} purchases, as of {header.as_of or 'MySQL'}"
    )


def summary_json(path: Path, report: Report) -> str:
    """Summary of a stored report as JSON."""
    return msgspec.json.encode({"file": str(path), **msgspec.to_builtins(report.header)}).decode()
