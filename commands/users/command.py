"""`lately users …`."""

from __future__ import annotations

import asyncio

import click
import msgspec

from app.errors import EX_DIFFERENT
from app.settings import Settings


@click.group()
def users() -> None:
    """Look after single users."""


@users.command("erase")
@click.argument("user")
@click.option("--proof", is_flag=True, help="Then look everywhere, and list what is found; reads whole topics.")
@click.option("--dry-run", is_flag=True, help="Change nothing; with --proof, look only.")
@click.option("--worker", default=None, help="Address of any worker; default http://LATELY_WEB_HOST:LATELY_WEB_PORT.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def erase(user: str, proof: bool, dry_run: bool, worker: str | None, as_json: bool) -> None:
    """Forget USER for ever, once the shop has no rows of that user; exit 3 when the proof finds what should be gone."""
    from commands.users import erase as erasing
    from commands.users import erasure_proof

    settings = Settings.from_env()
    done = None
    if not (proof and dry_run):
        done = asyncio.run(erasing.erase_user(settings, user, worker, dry_run))
    places = asyncio.run(erasure_proof.prove_erasure(settings, user, worker)) if proof else []
    if as_json:
        said = {} if done is None else {"version": done.version, "purchases": done.purchases, "letters": done.letters}
        listed = {"places": [place._asdict() for place in places]} if proof else {}
        click.echo(msgspec.json.encode({"user_id": user, "dry_run": dry_run, **said, **listed}).decode())
    else:
        if done is not None:
            would = "would be " if dry_run else ""
            click.echo(f"{done.purchases} purchases {would}forgotten, {done.letters} dead letters {would}dropped")
        for place in places:
            found = "-" if place.found is None else f"{place.found:,}"
            click.echo(f"{'LEFT' if place.left else 'ok':6}{found:>7}  {place.name}: {place.says}")
    if any(place.left for place in places):
        raise SystemExit(EX_DIFFERENT)
