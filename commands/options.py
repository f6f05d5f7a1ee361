"""Options that several commands share."""

from __future__ import annotations

import click

#: `--worker`: the URL of the worker from which a command reads the tables.
worker_option = click.option(
    "--worker", default=None, help="Address of any worker; default: http://LATELY_WEB_HOST:LATELY_WEB_PORT."
)
