"""The command `lately verify`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import click
import msgspec

from app.errors import EX_DIFFERENT, ServerAway
from app.settings import Settings
from commands.options import worker_option
from commands.output import ProgressLine, echo, encode_difference, format_difference

if TYPE_CHECKING:
    from commands.verify.verify import VerifyOutcome


@click.command()
@click.option("--user", "users", multiple=True, help="Only this user; may be given several times.")
@click.option("--repair", is_flag=True, help="Repair each difference: publish an event with the content of MySQL.")
@click.option("--continuous", is_flag=True,
              help="Repeat the verification; responses show in meta.verified_at what is verified.")  # fmt: skip
@click.option("--every", type=click.IntRange(0), default=300, show_default=True,
              help="With --continuous: seconds between two verifications.")  # fmt: skip
@click.option("--rows-per-s", type=click.IntRange(0), default=20_000, show_default=True,
              help="Maximum number of rows per second that are read from MySQL; 0: unlimited.")  # fmt: skip
@click.option("--samples", type=click.IntRange(0), default=20, show_default=True,
              help="Maximum number of differences of each kind that are printed.")  # fmt: skip
@click.option("--resume/--restart", default=True, help="Continue an interrupted verification, or start a new one.")
@worker_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object per difference, then the outcome.")
def verify(
    users: tuple[str, ...],
    repair: bool,
    continuous: bool,
    every: int,
    rows_per_s: int,
    samples: int,
    resume: bool,
    worker: str | None,
    as_json: bool,
) -> None:
    """Compare the workers' tables with MySQL while orders flow; exit code 3 if they differ."""
    from commands.verify.verify import VerifyOptions, verify_tables
    from domain.differences import PurchaseDifference

    if users and continuous:
        raise click.UsageError("--user and --continuous exclude each other")
    settings = Settings.from_env()
    options = VerifyOptions(users, repair, rows_per_s, worker, resume)
    while True:
        printed: Counter[str] = Counter()

        def report(difference: PurchaseDifference, printed: Counter[str] = printed) -> None:
            printed[difference.kind] += 1
            if as_json:
                echo(encode_difference(difference, "database"))
            elif printed[difference.kind] <= samples:
                echo(format_difference(difference, "MySQL"))

        try:
            outcome = asyncio.run(verify_tables(settings, options, report, ProgressLine()))
        except ServerAway as exc:
            if not continuous:
                raise
            echo(f"{exc}; trying again in {every} s", err=True)
        else:
            summary = msgspec.json.encode(outcome.to_dict()).decode() if as_json else _summarize(outcome, repair)
            echo(summary)
            if outcome.remaining and not continuous:
                raise SystemExit(EX_DIFFERENT)
        if not continuous:
            return
        time.sleep(every)


def _summarize(outcome: VerifyOutcome, repair: bool) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.differences.items()))
    summary = (
        f"{outcome.users:,} users compared in {outcome.seconds:.1f} s: {outcome.differences.total()} differences"
        + (f" ({kinds})" if kinds else "")
        + (f", {outcome.repaired} repaired" if repair else "")
        + (f", {outcome.undecided} undecided, because they keep changing" if outcome.undecided else "")
    )
    if outcome.left_out:
        rules = "; ".join(f"{rule} ({count:,})" for rule, count in outcome.left_out.most_common())
        summary += (
            f"\n{outcome.left_out.total():,} rows were left out, because they break a rule: {rules}"
            "\n`lately source check` names examples; correct these rows in MySQL"
        )
    if outcome.of_erased_users:
        summary += (
            f"\n{outcome.of_erased_users:,} rows of erased users are in MySQL, and no table shows them: they returned "
            "from a backup, or somebody else published the erasure; a new purchase of the user is shown"
        )
    if outcome.before_horizon:
        summary += (
            f"\n{outcome.before_horizon:,} rows from before the first snapshot are not in the tables: "
            "`lately source snapshot --all` publishes them"
        )
    if outcome.remaining and not repair:
        return f"{summary}\n`lately verify --repair` makes the tables equal to MySQL"
    return summary
