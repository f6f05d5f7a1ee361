"""`lately trace`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click
import msgspec

from app.errors import EX_DIFFERENT, EX_USAGE, Unknown
from app.settings import Settings
from commands.output import ProgressLine

if TYPE_CHECKING:
    from source.order_trace import OrderTrace, Tracer

AGAIN_AFTER_S = 0.2


@click.command()
@click.argument("order_id", required=False)
@click.option("--trace-id", default=None, help="The orders of a W3C trace, in place of ORDER_ID.")
@click.option("--user", "user_id", default=None, help="Whose order it is, where MySQL does not know it any more.")
@click.option("--last", type=click.IntRange(1), default=20, show_default=True,
              help="With --user alone: so many of the user's newest purchases.")  # fmt: skip
@click.option("--follow", is_flag=True, help="Wait until it is visible, and show each stage as it is reached.")
@click.option("--within", type=click.IntRange(1), default=60, show_default=True, help="Wait so many seconds at most.")
@click.option("--history", is_flag=True,
              help="All its events, read from the topic: of --user's partition, or of all.")  # fmt: skip
@click.option("--worker", default=None, help="Address of any worker; default http://LATELY_WEB_HOST:LATELY_WEB_PORT.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
def trace(
    order_id: str | None,
    trace_id: str | None,
    user_id: str | None,
    last: int,
    follow: bool,
    within: int,
    history: bool,
    worker: str | None,
    as_json: bool,
) -> None:
    """Show the life of an order, and in one sentence why it is not visible; exit 3 when it is not as MySQL has it.

    With --trace-id that of every order whose row or waiting change names the trace.
    """
    from app import ids
    from commands.trace import trace as tracing

    settings = Settings.from_env()
    if order_id is not None:
        ids.require_order(order_id)
    if user_id is not None:
        ids.require_user(user_id)
    if order_id is not None and trace_id is not None:
        raise click.UsageError("ORDER_ID and --trace-id exclude each other")
    if follow and history:
        raise click.UsageError("--follow and --history exclude each other")
    if trace_id is not None:
        ids.require_trace(trace_id := trace_id.lower())
    if order_id is None and trace_id is None:
        if user_id is None or follow or history:
            raise click.UsageError("give an order id, --trace-id, or --user alone")
        _say_newest(asyncio.run(tracing.newest_purchases(settings, user_id, last, worker)), as_json)
    elif history:
        asyncio.run(_history(settings, order_id, trace_id, user_id, as_json))
    else:
        look = _look(settings, order_id, trace_id, user_id, worker, within if follow else None, as_json)
        codes = {"different": EX_DIFFERENT, "unknown": EX_DIFFERENT if follow else EX_USAGE}
        raise SystemExit(max(codes.get(outcome, 0) for outcome in asyncio.run(look)))


async def _look(
    settings: Settings, order_id: str | None, trace_id: str | None, user_id: str | None, worker: str | None,
    within: int | None, as_json: bool,
) -> list[str]:  # fmt: skip
    """The outcome of the order, or of each order of the trace."""
    from commands.trace import orders_of_trace
    from commands.trace.trace import open_tracer

    found = [order_id] if trace_id is None else await orders_of_trace.find_orders(settings, trace_id)
    async with open_tracer(settings, worker) as tracer:
        return [await _look_at(tracer, one, user_id, within, as_json) for one in found]


async def _look_at(tracer: Tracer, order_id: str, user_id: str | None, within: int | None, as_json: bool) -> str:
    until, told = time.monotonic() + (within or 0), set()
    while True:
        traced = await tracer.trace_order(order_id, user_id)
        ended = traced.outcome in ("visible", "cancelled") or time.monotonic() >= until
        if not as_json and within is not None:
            _say_new(traced, told)
        if ended:
            _say(traced, as_json, stages=within is None)
            return traced.outcome
        await asyncio.sleep(AGAIN_AFTER_S)


def _say(traced: OrderTrace, as_json: bool, stages: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(traced.shown).decode())
        return
    shown = traced.shown
    if stages:
        click.echo(f"order {shown['order_id']} of user {shown['user_id'] or '(unknown)'}")
        for one in shown["purchases"]:
            version = "" if one["version"] is None else f", version {one['version']}"
            click.echo(f"\n{one['product_name']}{version}")
            for stage in one["stages"]:
                click.echo(f"  {_stage(stage)}")
            click.echo(f"  {one['diagnosis']}")
    meta = shown["meta"]
    click.echo(f"\n{traced.diagnosis}\n({meta['records_fetched']} records fetched, {meta['took_ms']:.0f} ms)")


def _say_new(traced: OrderTrace, told: set) -> None:
    """Print what was not printed before."""
    for one in traced.shown["purchases"]:
        lines = [_stage(stage) for stage in one["stages"]]
        # How long it has waited changes all the time.
        said = one["diagnosis"].split(":")[0].rpartition(" for ")[0] or one["diagnosis"]
        for line, key in [*((line, line) for line in lines), (one["diagnosis"], said)]:
            if (one["product_name"], key) not in told:
                told.add((one["product_name"], key))
                click.echo(f"{one['product_name']}: {line}")


def _stage(stage: dict) -> str:
    ms = "" if stage["ms"] is None else f"+{stage['ms']:.0f} ms"
    place = f"{stage['topic']}[{stage['partition']}]@{stage['offset']}" if "topic" in stage else stage["event_id"]
    more = [stage[name] for name in ("type", "traceparent", "worker") if stage.get(name)]
    return f"{stage['stage']:10}{stage['at']:28}{ms:>12}  {'  '.join([place, *more])}"


def _say_newest(registers: list, as_json: bool) -> None:
    from domain.values import rfc3339

    for one in registers:
        age = time.time() - one.ordered_at / 1e6
        shown = {
            "order_id": str(one.order_id), "product_name": one.product_name, "version": one.version,
            "offset": None if one.offset < 0 else one.offset, "ordered_at": rfc3339(one.ordered_at),
            "age_s": round(age, 1),
        }  # fmt: skip
        if as_json:
            click.echo(msgspec.json.encode(shown).decode())
        else:
            click.echo(f"{shown['ordered_at']:28}{age:>12,.0f} s  @{one.offset:<10}{one.order_id}  {one.product_name}")
    if not as_json:
        click.echo(f"{len(registers)} purchases")


async def _history(
    settings: Settings, order_id: str | None, trace_id: str | None, user_id: str | None, as_json: bool
) -> None:
    from commands.trace import events_of_order as history

    wanted = history.of_order(order_id) if trace_id is None else history.of_trace(trace_id)
    found = [one async for one in history.events(settings, wanted, user_id, ProgressLine())]
    # What became of an event is known by all events of its order.
    for one in history.judged(found) if trace_id is None else [history.shown(*one) for one in found]:
        if as_json:
            click.echo(msgspec.json.encode(one).decode())
        else:
            place, said = f"{one['partition']}@{one['offset']}", f"{one['type']:16}{one['version']}"
            more = one["state"] if trace_id is None else f"order {one['order_id']}"
            click.echo(f"{place:14}{one['time']:28}{said}  {one['product_name']}  {one['user_id']}  {more}")
    if not found:
        what = f"order {order_id}" if trace_id is None else f"trace {trace_id}"
        raise Unknown(f"no event of {what} is in the topic{'' if user_id is None else ' for this user'}")
