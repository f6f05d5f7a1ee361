"""A shop whose changes reach the tables of a web server as events, without MySQL and without Kafka."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

import msgspec

from domain.events import CHANGED, PLACED, REMOVED, Event, OrderLine
from tests.kit.makers import event
from tests.kit.orders import NOW
from tests.kit.web import WebServer

LineFilter = Callable[[OrderLine], bool]


class EventShop:
    """Places, changes and removes order lines, as the triggers and the source would publish it."""

    def __init__(self, server: WebServer) -> None:
        self._server = server
        self._lines: dict[tuple[str | int, str], OrderLine] = {}
        self._versions = itertools.count(1)
        #: The events that are published at the end of `at_once`.
        self._collected: list[Event] | None = None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Publish all events of the block together: a worker needs fewer steps for them."""
        self._collected = []
        yield
        events, self._collected = self._collected, None
        self._server.publish(*events)

    def insert(self, *rows: tuple[str, str, str, str, datetime, str | None], category: str | None = None) -> None:
        """Place order lines (order id, product, user, price, ordered at in UTC, payment method)."""
        events: list[Event] = []
        for order_id, product_name, user_id, price, ordered_at, payment_method in rows:
            time = ordered_at.replace(tzinfo=timezone.utc)
            version = next(self._versions)
            line = OrderLine(user_id, order_id, product_name, price, time, version, payment_method, category)
            events.append(self._save(line))
        self._publish(events)

    def buy(self, *purchases: tuple[str, str], category: str | None = None, at: datetime = NOW) -> None:
        """Each user buys a product for 1.00."""
        rows = [
            (f"{user}-{number}-{at}", name, user, "1.00", at, "card") for number, (user, name) in enumerate(purchases)
        ]
        self.insert(*rows, category=category)

    def cancel(self, user: str, product: str) -> None:
        """Remove a user's purchases of a product."""
        self.delete(lambda line: (line.user_id, line.product_name) == (user, product))

    def update(self, is_selected: LineFilter, **changes: object) -> None:
        """Set fields of the selected order lines."""
        self.change(lambda line: msgspec.structs.replace(line, **changes) if is_selected(line) else line)

    def change(self, change_line: Callable[[OrderLine], OrderLine]) -> None:
        """Replace order lines; a change of the user removes the line from the former user."""
        events: list[Event] = []
        for line in list(self._lines.values()):
            changed = change_line(line)
            if changed is line:
                continue
            changed = msgspec.structs.replace(changed, version=next(self._versions))
            if changed.user_id != line.user_id:
                events.append(event(REMOVED, data=msgspec.structs.replace(line, version=changed.version)))
            events.append(self._save(changed, CHANGED))
        self._publish(events)

    def delete(self, is_selected: LineFilter) -> None:
        """Remove the selected order lines."""
        events: list[Event] = []
        for key, line in list(self._lines.items()):
            if is_selected(line):
                del self._lines[key]
                events.append(event(REMOVED, data=msgspec.structs.replace(line, version=next(self._versions))))
        self._publish(events)

    def _publish(self, events: list[Event]) -> None:
        if self._collected is None:
            self._server.publish(*events)
        else:
            self._collected += events

    def _save(self, line: OrderLine, type: str = PLACED) -> Event:
        self._lines[line.order_id, line.product_name] = line
        return event(type, data=line)
