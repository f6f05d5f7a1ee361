"""`lately identity`: show what the app belongs to, and record it anew after a move."""

from __future__ import annotations

import asyncio

import click

from app.settings import Settings
from commands.output import echo


@click.command()
@click.option("--adopt", is_flag=True, help="Record the present settings, after the topics have moved to this Kafka.")
def identity(adopt: bool) -> None:
    """Show the Kafka cluster and the topics to which the tables of this app belong."""
    from app.control import identity as app_identity

    settings = Settings.from_env()
    if adopt:
        adopted = asyncio.run(app_identity.adopt(settings))
        echo(f"LATELY_ID={settings.id} belongs to {adopted.orders} on the cluster {adopted.cluster} now")
        return
    by_settings, recorded = asyncio.run(app_identity.read_identities(settings))
    echo(f"{'settings':10}{by_settings.orders} on the cluster {by_settings.cluster}")
    echo(f"{'recorded':10}{f'{recorded.orders} on the cluster {recorded.cluster}' if recorded else 'nothing'}")
