"""The command `lately`: Faust's own command line, with ours added to it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TYPE_CHECKING

import click
import msgspec

from app.config import OUTBOX, Settings
from app.errors import EX_DIFFERENT, EX_USAGE, BadSetting, BadSource, LatelyError, PortTaken, ServerAway
from app.models import valid_user_id

if TYPE_CHECKING:
    from app.batch.verify import Outcome
    from app.source.check import Finding

FIRST_SNAPSHOT = "1d"


def main() -> None:
    """Run `lately …`; exit 2 for a usage or configuration error, 75 when a server is away."""
    from faust.cli.faust import cli

    cli.add_command(source)
    cli.add_command(config)
    cli.add_command(token)
    cli.add_command(dlq)
    cli.add_command(verify)
    cli.add_command(doctor)
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    if command in ("source", "config", "token", "dlq", "verify", "doctor"):
        # These need no Faust app, and must work while Kafka is away.
        _one_line_errors(lambda: cli(obj=None))
        return
    from app import app

    app.main()


def _one_line_errors(run: Callable[[], object]) -> None:
    try:
        run()
    except LatelyError as exc:
        print(f"lately: {exc}", file=sys.stderr)
        raise SystemExit(exc.exit_code) from None


@click.command()
def config() -> None:
    """Print the settings in use, secrets as ***."""
    for name, value in Settings.from_env().shown().items():
        click.echo(f"LATELY_{name.upper()}={value}")


@click.command()
@click.option("--user", help="The user whose data the token opens.")
@click.option("--operator", is_flag=True, help="The token opens everything.")
@click.option("--days", type=click.IntRange(1, 3650), help="It expires after so many days; without: never.")
def token(user: str | None, operator: bool, days: int | None) -> None:
    """Print an access token, signed with LATELY_TOKEN_SECRET."""
    from app import tokens

    settings = Settings.from_env()
    if not settings.token_secret:
        raise BadSetting("LATELY_TOKEN_SECRET is not set: a token is signed with the secret that the workers have")
    if user is None and not operator:
        raise click.UsageError("say whom the token is for: --user U or --operator")
    if user is not None and not valid_user_id(user):
        raise click.UsageError("--user is not a user id: 1 to 128 bytes without control characters")
    click.echo(tokens.issue(settings.token_secret, user=user, operator=operator, days=days))


@click.group(invoke_without_command=True)
@click.pass_context
def source(context: click.Context) -> None:
    """Publish the shop's orders (MySQL) as events (Kafka); without a subcommand: run."""
    if context.invoked_subcommand is None:
        _run()


@source.command("run")
def run() -> None:
    """Publish the outbox until stopped."""
    _run()


def _since(command: Callable) -> Callable:
    command = click.option("--all", "everything", is_flag=True, help="All orders, however old.")(command)
    return click.option(
        "--since", default=None, help=f"Orders since then: 12h, 2d, 2026-01-31T00:00:00Z. Default {FIRST_SNAPSHOT}."
    )(command)


@source.command("setup")
@_since
@click.option("--print-sql", is_flag=True, help="Only print the statements.")
@click.option("--apply", is_flag=True, help="Execute them; the default.")
def setup(since: str | None, everything: bool, print_sql: bool, apply: bool) -> None:
    """Create the outbox and its triggers, and take a first snapshot."""
    from app.source import setup as commands

    settings = Settings.from_env()
    if print_sql and apply:
        raise BadSource("--print-sql and --apply exclude each other")
    if print_sql:
        click.echo(commands.statements(settings))
    else:
        commands.setup(settings, _chosen(since, everything), click.echo, _Progress())


@source.command("snapshot")
@_since
@click.option("--where", default=None, help="Only rows for which this SQL condition holds.")
@click.option("--resume/--restart", default=True, help="Go on with a snapshot that was interrupted, or begin anew.")
@click.option("--dry-run", is_flag=True, help="Only say what would be published.")
def snapshot(since: str | None, everything: bool, where: str | None, resume: bool, dry_run: bool) -> None:
    """Publish the rows that the table holds now; newer changes are not touched."""
    from app.source import snapshot as taking
    from app.source.setup import moment_of

    settings = Settings.from_env()
    chosen = _chosen(since, everything or (where is not None and since is None))
    moment = None if chosen is None else moment_of(chosen)
    if dry_run:
        rows, condition = taking.dry_run(settings, moment, where)
        click.echo(f"{rows} rows of {settings.source_table} would be published ({condition})")
        return
    progress = _Progress()
    taken = asyncio.run(taking.run(settings, since=moment, where=where, resume=resume, progress=progress))
    click.echo(f"{taken.rows} rows are published")


@source.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool) -> None:
    """Look at everything the source needs; exit 2 when something has to be mended."""
    from app.source import check as checking

    if _say_findings(checking.check(Settings.from_env()), as_json):
        raise SystemExit(EX_USAGE)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Look at everything Lately needs, each finding with its fix; exit 1 when something has to be mended."""
    from app.batch import doctor as looking

    if _say_findings(looking.look(Settings.from_env()), as_json):
        raise SystemExit(1)


def _say_findings(findings: Iterable[Finding], as_json: bool) -> bool:
    """Print them; whether something has to be mended."""
    found = []
    for one in findings:
        found.append(one)
        if not as_json:
            click.echo(f"{one.result:8}{one.name}: {one.detail}" + (f"\n        fix: {one.fix}" if one.fix else ""))
    failed = any(one.result == "failed" for one in found)
    if as_json:
        click.echo(msgspec.json.encode({"ok": not failed, "findings": found}).decode())
    return failed


@source.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show how the source stands: who publishes, what waits, how far a snapshot is."""
    from app.source import status as standing

    shown = standing.status(Settings.from_env())
    if as_json:
        click.echo(msgspec.json.encode(shown).decode())
    else:
        for name, value in shown.items():
            click.echo(f"{name:24}{'' if value is None else value}")


@source.command("teardown")
@click.option("--force", is_flag=True, help="Also when changes are not published yet; they are lost.")
def teardown(force: bool) -> None:
    """Remove the outbox and its triggers from the shop's database."""
    from app.source import setup as commands

    commands.teardown(Settings.from_env(), force, click.echo)


@click.command()
@click.option("--user", "users", multiple=True, help="Only this user; may be given several times.")
@click.option("--repair", is_flag=True, help="Make the tables say what MySQL says, through the stream.")
@click.option("--continuous", is_flag=True, help="Again and again; answers say in meta.verified_at what is proven.")
@click.option("--every", type=click.IntRange(0), default=300, show_default=True, help="Seconds between two rounds.")
@click.option("--rows-per-s", type=click.IntRange(0), default=20_000, show_default=True,
              help="How fast MySQL is read at most; 0: as fast as it goes.")  # fmt: skip
@click.option("--samples", type=click.IntRange(0), default=20, show_default=True, help="Differences shown of a kind.")
@click.option("--resume/--restart", default=True, help="Go on with a verification that was interrupted, or begin anew.")
@click.option("--worker", default=None, help="Address of any worker; default http://LATELY_WEB_HOST:LATELY_WEB_PORT.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object per difference, then one of the outcome.")
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
    """Compare what the workers answer with MySQL, while orders flow; exit 3 when they differ."""
    from app.batch import verify as verifying
    from app.comparison import Difference

    if users and continuous:
        raise click.UsageError("--user and --continuous exclude each other")
    settings = Settings.from_env()
    asked = verifying.Asked(users, repair, rows_per_s, worker, resume)
    while True:
        shown: Counter[str] = Counter()

        def tell(one: Difference, shown: Counter[str] = shown) -> None:
            shown[one.kind] += 1
            if as_json:
                click.echo(msgspec.json.encode(one.shown()).decode())
            elif shown[one.kind] <= samples:
                click.echo(_difference(one.shown()))

        try:
            outcome = asyncio.run(verifying.run(settings, asked, tell, _Progress()))
        except ServerAway as exc:
            if not continuous:
                raise
            click.echo(f"{exc}; trying again in {every} s", err=True)
        else:
            click.echo(msgspec.json.encode(outcome.shown()).decode() if as_json else _outcome(outcome, repair))
            if outcome.left and not continuous:
                raise SystemExit(EX_DIFFERENT)
        if not continuous:
            return
        time.sleep(every)


def _outcome(outcome: Outcome, repair: bool) -> str:
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(outcome.found.items()))
    said = (
        f"{outcome.users:,} users compared in {outcome.seconds:.1f} s: {outcome.found.total()} differences"
        + (f" ({kinds})" if kinds else "")
        + (f", {outcome.repaired} repaired" if repair else "")
        + (f", {outcome.deferred} not decided, because they keep changing" if outcome.deferred else "")
    )
    return (
        f"{said}\n`lately verify --repair` makes the tables say what MySQL says"
        if outcome.left and not repair
        else said
    )


def _difference(shown: dict) -> str:
    what = f"{shown['kind']:8} user {shown['user_id']}, order {shown['order_id']}, {shown['product_name']}: "
    database, table = shown["database"], shown["table"]
    if database is None or table is None:
        said = database or table
        return f"{what}{said['price']}, {said['ordered_at']}, only in {'the table' if database is None else 'MySQL'}"
    pairs = [f"{name} {database[name]} in MySQL, {table[name]} in the table" for name in database
             if database[name] != table[name]]  # fmt: skip
    return what + "; ".join(pairs)


@click.group()
def dlq() -> None:
    """Look after the dead letters: records of `orders` and rows of the shop that could not be read."""


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")


@dlq.command("list")
@click.option("--reason", default=None, help="Only those with this reason.")
@_as_json
def dlq_list(reason: str | None, as_json: bool) -> None:
    """Show the dead letters that were neither retried nor dropped."""
    from app.batch import dlq as letters

    found = asyncio.run(letters.find(Settings.from_env(), letters.among((), reason)))
    for one in found:
        _say_letter(one.shown(), as_json, f"{one.id:12}{one.failed_at:28}{one.reason:20}{one.origin:24}{one.message}")
    if not as_json:
        click.echo(f"{len(found)} dead letters")


@dlq.command("show")
@click.argument("place")
@_as_json
def dlq_show(place: str, as_json: bool) -> None:
    """Show one dead letter whole; PLACE is as in `list`, such as 0@12."""
    from app.batch import dlq as letters

    found = asyncio.run(letters.find(Settings.from_env(), letters.among((place,), None)))
    letters.require_all((place,), found)
    shown = found[0].shown()
    _say_letter(
        shown, as_json, "\n".join(f"{name:12}{'' if value is None else value}" for name, value in shown.items())
    )


def _settling(command: Callable) -> Callable:
    command = click.option("--dry-run", is_flag=True, help="Only say what would be done.")(command)
    command = click.option("--reason", default=None, help="Only those with this reason.")(command)
    command = click.option("--all", "everything", is_flag=True, help="All of them.")(command)
    return _as_json(click.argument("places", nargs=-1)(command))


@dlq.command("retry")
@_settling
def dlq_retry(places: tuple[str, ...], everything: bool, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Send dead letters to where they came from, as they were; those that still cannot be read come back."""
    _settle(places, everything, reason, dry_run, as_json, "retried")


@dlq.command("drop")
@_settling
def dlq_drop(places: tuple[str, ...], everything: bool, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Show dead letters no more."""
    _settle(places, everything, reason, dry_run, as_json, "dropped")


def _settle(
    places: tuple[str, ...], everything: bool, reason: str | None, dry_run: bool, as_json: bool, done: str
) -> None:
    from app.batch import dlq as letters
    from app.topics import Topics

    if not (places or everything or reason):
        raise click.UsageError("say which: places as `lately dlq list` shows them, --reason, or --all")
    if places and everything:
        raise click.UsageError("places and --all exclude each other")
    settings = Settings.from_env()
    if places:
        letters.require_all(places, asyncio.run(letters.find(settings, letters.among(places, None))))
    fit, unfit = asyncio.run(letters.settle(settings, letters.among(places, reason), done, dry_run))
    outcome = f"would be {done}" if dry_run else done
    for one in fit:
        _say_letter({**one.shown(), "outcome": outcome}, as_json, f"{one.id:12}{outcome}")
    for one in unfit:
        why = letters.obstacle(one, Topics(settings).orders.name)
        _say_letter({**one.shown(), "outcome": f"kept: {why}"}, as_json, f"{one.id:12}kept: {why}")
    if unfit:
        raise SystemExit(1)


def _say_letter(shown: dict[str, object], as_json: bool, line: str) -> None:
    click.echo(msgspec.json.encode(shown).decode() if as_json else line)


class _Progress:
    """Shows how far a snapshot is: a line that is written over on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._begun = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __call__(self, rows: int, total: int) -> None:
        now = time.monotonic()
        if now - self._shown < (0.2 if self._terminal else 5.0):
            return
        self._shown = now
        line = f"{rows:,} of about {total:,} rows, {rows / (now - self._begun):,.0f} rows/s"
        if self._terminal:
            filled = round(20 * rows / total)
            click.echo(f"\r[{'#' * filled}{'.' * (20 - filled)}] {line} ", err=True, nl=False)
        else:
            click.echo(line, err=True)


def _chosen(since: str | None, everything: bool) -> str | None:
    if since is not None and everything:
        raise BadSource("--since and --all exclude each other")
    return None if everything else since or FIRST_SNAPSHOT


def _run() -> None:
    from mode import Worker
    from prometheus_client import start_http_server

    from app.source import mysql, triggers
    from app.source.service import Source
    from app.topics import ensure_topics

    settings = Settings.from_env()
    with closing(mysql.connect(settings)) as connection:
        if settings.source_mode == OUTBOX:
            triggers.require(connection, settings)
    asyncio.run(ensure_topics(settings))
    if settings.source_metrics_port:
        try:
            start_http_server(settings.source_metrics_port, addr=settings.web_host)
        except OSError as exc:
            raise PortTaken(
                f"cannot serve /metrics on {settings.web_host}:{settings.source_metrics_port} ({exc.strerror}): "
                "choose another with LATELY_SOURCE_METRICS_PORT"
            ) from None
    running = Source(settings)
    worker = Worker(running, loglevel="INFO", redirect_stdouts=False, loop=asyncio.new_event_loop())
    try:
        worker.execute_from_commandline()
    except BaseException:
        if running.given_up is None:
            raise
        raise running.given_up from None
