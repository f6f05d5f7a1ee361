"""The commands `lately config` and `lately token`: print the settings, issue access tokens."""

from __future__ import annotations

import click

from app.errors import BadSetting
from app.settings import Settings
from commands.output import echo
from domain.events import is_valid_user_id


@click.command()
def config() -> None:
    """Print the settings in use, secrets as ***."""
    for name, value in Settings.from_env().to_display().items():
        echo(f"LATELY_{name.upper()}={value}")


@click.command()
@click.option("--user", help="The token gives access to the data of this user.")
@click.option("--operator", is_flag=True, help="The token gives access to everything.")
@click.option("--days", type=click.IntRange(1, 3650), help="Days until the token expires; default: never.")
def token(user: str | None, operator: bool, days: int | None) -> None:
    """Print an access token, signed with LATELY_TOKEN_SECRET."""
    from app import tokens

    settings = Settings.from_env()
    if not settings.token_secret:
        raise BadSetting("LATELY_TOKEN_SECRET is not set: use the secret of the workers, it signs the token")
    if user is None and not operator:
        raise click.UsageError("give the owner of the token: --user U or --operator")
    if user is not None and not is_valid_user_id(user):
        raise click.UsageError("--user is not a user id: 1 to 128 bytes without control characters")
    echo(
        tokens.create_token(
            settings.token_secret, user=user, operator=operator, days=days, audience=settings.token_audience
        )
    )
