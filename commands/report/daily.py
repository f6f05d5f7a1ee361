"""All reports of one day, kept as files: what `lately report daily` and the workers' timer make."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from app.errors import BadReport
from app.settings import Settings
from commands import report as reports
from commands.report import atomic_file, calendar, formats
from commands.report.build import CUSTOMERS, PAYMENTS, PRODUCTS, REPORTS, SALES, Asked
from commands.report.model import Report

FORMS = (formats.JSON, formats.HTML)
_BY = {SALES: calendar.HOUR, CUSTOMERS: calendar.DAY, PRODUCTS: None, PAYMENTS: None}


def files(folder: Path, day: date) -> dict[tuple[str, str], Path]:
    """Report and format -> the file that keeps it."""
    return {(name, form): folder / f"{day.isoformat()}-{name}.{form}" for name in REPORTS for form in FORMS}


def yesterday(now: datetime, tz: ZoneInfo) -> date:
    """The last day that has ended in `tz`."""
    return now.astimezone(tz).date() - timedelta(days=1)


async def keep(
    settings: Settings, day: str | None, tz: str, folder: Path, check: bool, worker: str | None, memory_mb: int,
    progress: reports.Progress = lambda done, total: None,
) -> tuple[reports.Made | None, list[Path]]:  # fmt: skip
    """Make what is missing of a day's reports, all at one position; what was made, and the files that are new.

    A file that is there is not touched, and none is made in two places at once: whoever comes second finds it there.
    Raises BadReport.
    """
    zone = calendar.zone(tz)
    chosen = _day(day) if day else yesterday(datetime.now(zone), zone)
    since, until = calendar.span(chosen.isoformat(), (chosen + timedelta(days=1)).isoformat(), zone)
    missing = {key: path for key, path in files(folder, chosen).items() if not path.exists()}
    if not missing:
        return None, []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise BadReport(f"{folder} cannot be made ({exc.strerror}): choose another with LATELY_REPORT_DIR") from None
    for path in missing.values():
        atomic_file.require_writable(path, force=False)
    names = [name for name in REPORTS if any(one == name for one, _ in missing)]
    asked = [Asked(name, since, until, _BY[name], zone, tz) for name in names]
    made = await reports.run(settings, asked, None, check, worker, memory_mb, progress)
    for name, report in zip(names, made.reports, strict=True):
        for form in FORMS:
            if (name, form) in missing and not _write(report, form, missing[name, form]):
                del missing[name, form]
    return made, list(missing.values())


def _write(report: Report, form: str, path: Path) -> bool:
    """Write it, unless somebody else was faster."""
    try:
        atomic_file.write(path, lambda temporary: temporary.write_bytes(formats.encode(report, form)), force=False)
    except BadReport:
        if not path.exists():
            raise
        return False
    return True


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadReport(f"--day: {text!r} is no day such as 2026-01-31") from None
