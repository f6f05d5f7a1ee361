"""The command `lately trace`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click
import msgspec

from app.errors import EX_DIFFERENT, EX_USAGE, UnknownTarget
from app.polling import poll_until
from app.settings import Settings
from commands.options import worker_option
from commands.output import ProgressLine, echo

if TYPE_CHECKING:
    from domain.purchases import Purchase
    from source.order_trace import OrderTrace, Tracer

POLL_INTERVAL_S = 0.2
#: Outcomes that end `--follow`.
FINAL_OUTCOMES = ("visible", "cancelled")


@click.command()
@click.argument("order_id", required=False)
@click.option("--trace-id", default=None, help="The orders of a W3C trace, instead of ORDER_ID.")
@click.option("--user", "user_id", default=None, help="The user of the order, if MySQL no longer contains it.")
@click.option("--last", type=click.IntRange(1), default=20, show_default=True,
              help="With --user alone: the number of the user's newest purchases to list.")  # fmt: skip
@click.option(
    "--follow", is_flag=True, help="Wait until the order is visible, and print each stage when it is reached."
)
@click.option("--within", type=click.IntRange(1), default=60, show_default=True,
              help="With --follow: the maximum time to wait, in seconds.")  # fmt: skip
@click.option("--history", is_flag=True,
              help="List all events, read from the topic: from the partition of --user, or from all.")  # fmt: skip
@worker_option
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
    """Show the stages of an order and a diagnosis; exit code 3 if the table differs from MySQL.

    With --trace-id show each order whose row or pending change contains the trace.
    """
    from app import ids
    from commands.trace.trace import newest_purchases

    settings = Settings.from_env()
    if order_id is not None:
        ids.require_order_id(order_id)
    if user_id is not None:
        ids.require_user_id(user_id)
    if order_id is not None and trace_id is not None:
        raise click.UsageError("ORDER_ID and --trace-id exclude each other")
    if follow and history:
        raise click.UsageError("--follow and --history exclude each other")
    if trace_id is not None:
        ids.require_trace_id(trace_id := trace_id.lower())
    if order_id is None and trace_id is None:
        if user_id is None or follow or history:
            raise click.UsageError("give an order id, --trace-id, or --user alone")
        _print_newest(asyncio.run(newest_purchases(settings, user_id, last, worker)), as_json)
    elif history:
        asyncio.run(_print_history(settings, order_id, trace_id, user_id, as_json))
    else:
        outcomes = asyncio.run(
            _trace_orders(settings, order_id, trace_id, user_id, worker, within if follow else None, as_json)
        )
        codes = {"different": EX_DIFFERENT, "unknown": EX_DIFFERENT if follow else EX_USAGE}
        raise SystemExit(max(codes.get(outcome, 0) for outcome in outcomes))


async def _trace_orders(
    settings: Settings, order_id: str | None, trace_id: str | None, user_id: str | None, worker: str | None,
    within_s: int | None, as_json: bool,
) -> list[str]:  # fmt: skip
    """Print the trace of the order, or of each order of the W3C trace; return the outcomes."""
    from commands.trace.orders_of_trace import find_orders
    from commands.trace.trace import open_tracer

    order_ids = [] if order_id is None else [order_id]
    if trace_id is not None:
        order_ids = await find_orders(settings, trace_id)
    async with open_tracer(settings, worker) as tracer:
        return [await _trace_order(tracer, order, user_id, within_s, as_json) for order in order_ids]


async def _trace_order(tracer: Tracer, order_id: str, user_id: str | None, within_s: int | None, as_json: bool) -> str:
    """Print the trace of an order and return its outcome.

    With `within_s` poll until the outcome is final.
    """
    from commands.trace.text import format_trace, new_lines

    printed: set[tuple[str, str]] = set()

    async def trace_once() -> OrderTrace:
        order_trace = await tracer.trace_order(order_id, user_id)
        if not as_json and within_s is not None:
            for line in new_lines(order_trace, printed):
                echo(line)
        return order_trace

    order_trace = await poll_until(
        trace_once, within_s or 0, POLL_INTERVAL_S, is_done=lambda order_trace: order_trace.outcome in FINAL_OUTCOMES
    )
    if as_json:
        echo(msgspec.json.encode(order_trace.document).decode())
    else:
        echo(format_trace(order_trace, with_stages=within_s is None))
    return order_trace.outcome


def _print_newest(purchases: list[Purchase], as_json: bool) -> None:
    from domain.values import rfc3339

    for purchase in purchases:
        age_s = time.time() - purchase.ordered_at / 1e6
        ordered_at = rfc3339(purchase.ordered_at)
        if as_json:
            fields = {
                "order_id": str(purchase.order_id), "product_name": purchase.product_name,
                "version": purchase.version, "offset": None if purchase.offset < 0 else purchase.offset,
                "ordered_at": ordered_at, "age_s": round(age_s, 1),
            }  # fmt: skip
            echo(msgspec.json.encode(fields).decode())
        else:
            order = f"@{purchase.offset:<10}{purchase.order_id}  {purchase.product_name}"
            echo(f"{ordered_at:28}{age_s:>12,.0f} s  {order}")
    if not as_json:
        echo(f"{len(purchases)} purchases")


async def _print_history(
    settings: Settings, order_id: str | None, trace_id: str | None, user_id: str | None, as_json: bool
) -> None:
    from commands.trace import events_of_order

    if trace_id is not None:
        subject, event_filter = f"trace {trace_id}", events_of_order.trace_filter(trace_id)
    else:
        assert order_id is not None
        subject, event_filter = f"order {order_id}", events_of_order.order_filter(order_id)
    history = [logged async for logged in events_of_order.read_history(settings, event_filter, user_id, ProgressLine())]
    # The state of an event follows from all events of its order, which a trace may not contain.
    described = [logged.to_dict() for logged in history] if trace_id else events_of_order.describe_states(history)
    for fields in described:
        if as_json:
            echo(msgspec.json.encode(fields).decode())
        else:
            position, event = f"{fields['partition']}@{fields['offset']}", f"{fields['type']!s:16}{fields['version']}"
            suffix = fields["state"] if trace_id is None else f"order {fields['order_id']}"
            echo(f"{position:14}{fields['time']!s:28}{event}  {fields['product_name']}  {fields['user_id']}  {suffix}")
    if not history:
        raise UnknownTarget(f"no event of {subject} is in the topic{'' if user_id is None else ' for this user'}")
