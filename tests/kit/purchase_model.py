"""The stored purchases of a user, an oracle without common code, and strategies for histories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timezone
from fractions import Fraction

import msgspec
from hypothesis import strategies as st

from domain.events import CHANGED, PLACED, REMOVED, REPAIRED, SNAPSHOT, Event
from domain.purchases import (
    PriceChange,
    Purchase,
    apply_event,
    decode_overflow,
    decode_recent,
    newest_purchases,
    overflow_key,
)
from domain.totals import (
    decode_totals,
    encode_totals,
    sum_price_changes,
)
from tests.kit.makers import at, event

# Small limits, so that examples reach them: a value is trimmed at the seventh purchase to four, and lists have three.
MAX_ENTRIES, TRIM_TO, LIMIT = 6, 4, 3

# Numbers, texts of digits, case and non-ASCII letters must sort correctly. The last ones contain the encoded identity
# of others.
PURCHASES = [
    (2, "tea"), (10, "tea"), (10, "Tea"), (10, "té"), (-1, "tea"), (2**64 - 1, "tea"), (-(2**63), "tea"), (0, "\x00"),
    ("10", "tea"), ("9", "tea"), ("é", "tea"), ("z", "tea"), ("Z", "\x00"), ("\U0001f600", "tea"),
    ("z", "\x02\x03tea"), (5, "c"), ("5", "\x05\x01c"),
]  # fmt: skip

numbers = st.integers(0, len(PURCHASES) - 1)
types = st.sampled_from([PLACED, CHANGED, REMOVED, SNAPSHOT])
versions = st.integers(0, 5)
sample_prices = st.sampled_from(["1.00", "2.50", "0.0000000001", "999999999999999999.9999999999", "0"])
prices = st.from_regex(r"[0-9]{1,18}(\.[0-9]{1,10})?", fullmatch=True)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


def change(number: int, version: int, type: str, hour: float, price: str = "1.00", **more: object) -> Event:
    """Return an event of one of PURCHASES."""
    order_id, product_name = PURCHASES[number]
    return event(
        type, order_id=order_id, product_name=product_name, version=version, ordered_at=at(hour), price=price, **more
    )


class User:
    """The purchases of a user as tables/by_user and tables/product_partials store them, in two dicts."""

    def __init__(self, max_entries: int = MAX_ENTRIES, trim_to: int = TRIM_TO) -> None:
        self.max_entries, self.trim_to = max_entries, trim_to
        self.value: bytes | None = None
        self.offset = 0
        self.overflow: dict[bytes, bytes] = {}
        self.totals: dict[str, bytes] = {}

    def add(self, events: Iterable[Event]) -> User:
        """Apply a chunk of events of the user."""
        price_changes: list[PriceChange] = []
        for order_event in events:
            self.value = apply_event(
                b"ann",
                self.value,
                order_event,
                self.offset,
                self.overflow.get,
                self._write_overflow,
                self.max_entries,
                self.trim_to,
                price_changes,
            )
            self.offset += 1
        for product_name, added in sum_price_changes(Counter(price_changes)).items():
            self.totals[product_name] = encode_totals(decode_totals(self.totals.get(product_name)) + added)
        return self

    def _write_overflow(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            del self.overflow[key]
        else:
            self.overflow[key] = value

    def newest(self, limit: int = LIMIT) -> list[Purchase]:
        return newest_purchases(self.value, self.overflow.values, limit)

    def totals_by_product(self) -> dict[str, tuple[int, Fraction]]:
        """Return product -> (purchases, revenue), without products that have no purchases."""
        read = {name: decode_totals(value) for name, value in self.totals.items()}
        assert all(totals.revenue == 0 for totals in read.values() if not totals.purchases)
        return {name: (totals.purchases, Fraction(totals.revenue)) for name, totals in read.items() if totals.purchases}


def user_after(calls: Iterable[Iterable[Event]], max_entries: int = MAX_ENTRIES, trim_to: int = TRIM_TO) -> User:
    """Return a user after these chunks of events."""
    user = User(max_entries, trim_to)
    for events in calls:
        user.add(events)
    return user


# -- the oracle: it stores every event and shares no code with the product


def newest_events(events: Iterable[Event]) -> list[Event]:
    """Return the newest event of each purchase."""
    newest: dict[tuple, Event] = {}
    for order_event in events:
        key = (type(order_event.data.order_id), order_event.data.order_id, order_event.data.product_name)
        if key not in newest or strength(order_event) > strength(newest[key]):
            newest[key] = order_event
    return list(newest.values())


def strength(order_event: Event) -> tuple:
    """The sort key of versions: version, removal, then the content as text; None is less than any text."""
    data = order_event.data
    content = [str(since_1970(data.ordered_at)), data.price, data.payment_method, data.category]
    return (data.version, order_event.type == REMOVED, [(text is not None, text or "") for text in content])


def since_1970(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def sql_order(order_event: Event) -> tuple:
    """ORDER BY ordered_at, order_id, product_name, integers before texts."""
    order_id = order_event.data.order_id
    number, text = (order_id, b"") if isinstance(order_id, int) else (0, order_id.encode())
    return (
        order_event.data.ordered_at,
        isinstance(order_id, str),
        number,
        text,
        order_event.data.product_name.encode(),
    )


def expected_purchases(newest: Iterable[Event], limit: int) -> list[tuple]:
    live = [order_event for order_event in newest if order_event.type != REMOVED]
    return [event_content(order_event) for order_event in sorted(live, key=sql_order, reverse=True)[:limit]]


def event_content(order_event: Event) -> tuple:
    data = order_event.data
    return (
        type(data.order_id), data.order_id, data.product_name, data.version, since_1970(data.ordered_at), data.price,
        data.payment_method, data.category,
    )  # fmt: skip


def purchase_content(purchase: Purchase) -> tuple:
    return (
        type(purchase.order_id), purchase.order_id, purchase.product_name, purchase.version,
        purchase.ordered_at, purchase.price, purchase.payment_method, purchase.category,
    )  # fmt: skip


def expected_totals(newest: Iterable[Event]) -> dict[str, tuple[int, Fraction]]:
    sums: dict[str, tuple[int, Fraction]] = {}
    for order_event in newest:
        if order_event.type != REMOVED:
            count, revenue = sums.get(order_event.data.product_name, (0, Fraction(0)))
            sums[order_event.data.product_name] = (count + 1, revenue + Fraction(order_event.data.price))
    return sums


def assert_equals_oracle(user: User, newest: list[Event]) -> None:
    """Assert that all results for the user equal those of the oracle."""
    for limit in (1, 2, LIMIT, TRIM_TO, MAX_ENTRIES, 10_000):
        assert [purchase_content(purchase) for purchase in user.newest(limit)] == expected_purchases(newest, limit)
    assert user.totals_by_product() == expected_totals(newest)
    assert_invariants(user)


def assert_invariants(user: User) -> None:
    """Assert the invariants of the stored bytes: no purchase is stored twice, and the floor is correct."""
    if user.value is None:
        assert not user.overflow
        return
    recent = decode_recent(user.value)
    assert len(recent.purchases) <= user.max_entries
    inline = [purchase.identity for purchase in recent.purchases]
    assert len({(type(order_id), order_id, name) for order_id, name in inline}) == len(inline)
    assert (recent.floor is None) == (not user.overflow)
    for key, value in user.overflow.items():
        purchase = decode_overflow(value)
        assert key == overflow_key(b"ann", *purchase.identity)
        assert not purchase.live or purchase.ordered_at <= recent.floor
    assert not set(user.overflow) & {overflow_key(b"ann", *identity) for identity in inline}


@st.composite
def histories(draw: st.DrawFn, max_size: int = 60) -> list[Event]:
    """Changes of many purchases at varying times; equal versions may have different contents."""
    labels = st.sampled_from([None, "", "None", "card"])
    steps = st.tuples(numbers, versions, types, st.integers(-2, 4), sample_prices, labels)
    return [
        change(number, version, type, hour, price, payment_method=label)
        for number, version, type, hour, price, label in draw(st.lists(steps, max_size=max_size))
    ]


@st.composite
def histories_of_any_type(draw: st.DrawFn) -> list[Event]:
    """Histories with repairs, whose versions are unique."""
    history = draw(histories())
    for position, repaired in enumerate(draw(st.lists(st.booleans(), min_size=len(history), max_size=len(history)))):
        if repaired:
            data = msgspec.structs.replace(history[position].data, version=6 + position)
            history[position] = event(REPAIRED, data=data)
    return history


@st.composite
def shuffled_chunks(draw: st.DrawFn, events: list[Event]) -> list[list[Event]]:
    """Repeat some events, shuffle all, and split them into chunks."""
    repeated = draw(st.lists(st.sampled_from(events), max_size=10)) if events else []
    shuffled = draw(st.permutations(events + repeated))
    cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=6)))
    return [shuffled[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
