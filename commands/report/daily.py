"""`lately report daily`: all reports of one day as files."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from app.errors import BadReport
from app.settings import Settings
from commands.report import atomic_file, calendar, formats
from commands.report import report as reports
from commands.report.build import CUSTOMERS, PAYMENTS, PRODUCTS, REPORTS, SALES, ReportQuery
from commands.report.model import Report

FORMS = (formats.JSON, formats.HTML)
_BY = {SALES: calendar.HOUR, CUSTOMERS: calendar.DAY, PRODUCTS: None, PAYMENTS: None}


def daily_files(folder: Path, day: date) -> dict[tuple[str, str], Path]:
    """(report, format) -> file."""
    return {(name, form): folder / f"{day.isoformat()}-{name}.{form}" for name in REPORTS for form in FORMS}


def yesterday(now: datetime, tz: ZoneInfo) -> date:
    """The last complete day in `tz`."""
    return now.astimezone(tz).date() - timedelta(days=1)


async def write_daily_reports(
    settings: Settings, day: str | None, tz: str, folder: Path, check: bool, worker: str | None, memory_mb: int,
    progress: reports.Progress = lambda done, total: None,
) -> tuple[reports.ReportResult | None, list[Path]]:  # fmt: skip
    """Write the missing reports of a day, all at one position; return the result and the new files.

    Existing files are not changed. If two processes write the same file, the first one wins. Raises BadReport.
    """
    zone = calendar.zone(tz)
    date_ = _parse_day(day) if day else yesterday(datetime.now(zone), zone)
    since, until = calendar.span(date_.isoformat(), (date_ + timedelta(days=1)).isoformat(), zone)
    missing = {key: path for key, path in daily_files(folder, date_).items() if not path.exists()}
    if not missing:
        return None, []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise BadReport(
            f"{folder} cannot be created ({exc.strerror}): choose another folder with LATELY_REPORT_DIR"
        ) from None
    for path in missing.values():
        atomic_file.require_writable(path, force=False)
    names = [name for name in REPORTS if any(report == name for report, _ in missing)]
    queries = [ReportQuery(name, since, until, _BY[name], zone, tz) for name in names]
    result = await reports.run(settings, queries, None, check, worker, memory_mb, progress)
    for name, report in zip(names, result.reports, strict=True):
        for form in FORMS:
            if (name, form) in missing and not _write(report, form, missing[name, form]):
                del missing[name, form]
    return result, list(missing.values())


def _write(report: Report, form: str, path: Path) -> bool:
    """Write a file; return False if another process has written it meanwhile."""
    try:
        atomic_file.write(path, lambda temporary: temporary.write_bytes(formats.encode(report, form)), force=False)
    except BadReport:
        if not path.exists():
            raise
        return False
    return True


def _parse_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadReport(f"--day: {text!r} is not a date such as 2026-01-31") from None
