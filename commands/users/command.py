"""The command `lately users`."""

from __future__ import annotations

import asyncio

import click
import msgspec

from app.errors import EX_DIFFERENT
from app.settings import Settings
from commands.options import worker_option
from commands.output import echo


@click.group()
def users() -> None:
    """Manage the data of single users."""


@users.command("erase")
@click.argument("user")
@click.option("--proof", is_flag=True,
              help="Search all places after the erasure, and list the result; reads complete topics.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Change nothing; with --proof only search.")
@worker_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def erase(user: str, proof: bool, dry_run: bool, worker: str | None, as_json: bool) -> None:
    """Erase USER permanently, once the shop has no rows of the user.

    Exit code 3 if the proof finds data.
    """
    from commands.users.erase import erase_user
    from commands.users.erasure_proof import prove_erasure

    settings = Settings.from_env()
    outcome = None
    if not (proof and dry_run):
        outcome = asyncio.run(erase_user(settings, user, worker, dry_run))
    findings = asyncio.run(prove_erasure(settings, user, worker)) if proof else []
    if as_json:
        document: dict[str, object] = {"user_id": user, "dry_run": dry_run}
        if outcome is not None:
            document |= {"version": outcome.version, "purchases": outcome.purchases, "letters": outcome.letters}
        if proof:
            document["places"] = [finding.to_dict() for finding in findings]
        echo(msgspec.json.encode(document).decode())
    else:
        if outcome is not None:
            prefix = "would be " if dry_run else ""
            echo(f"{outcome.purchases} purchases {prefix}erased, {outcome.letters} dead letters {prefix}dropped")
        for finding in findings:
            entries = "-" if finding.entries is None else f"{finding.entries:,}"
            echo(f"{'LEFT' if finding.is_left else 'ok':6}{entries:>7}  {finding.place}: {finding.note}")
    if any(finding.is_left for finding in findings):
        raise SystemExit(EX_DIFFERENT)
