"""A user's purchases as the tables hold them, an oracle that shares no code with them, and strategies for histories."""

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

# Few enough that the corners come quickly: a value is cut at the seventh purchase, to four; at most three are shown.
MOST, LEAST, LIMIT = 6, 4, 3

# Numbers, texts of digits, case and non-ASCII letters all have to sort right; the last ones hold bytes by which
# others are looked for.
PURCHASES = [
    (2, "tea"), (10, "tea"), (10, "Tea"), (10, "té"), (-1, "tea"), (2**64 - 1, "tea"), (-(2**63), "tea"), (0, "\x00"),
    ("10", "tea"), ("9", "tea"), ("é", "tea"), ("z", "tea"), ("Z", "\x00"), ("\U0001f600", "tea"),
    ("z", "\x02\x03tea"), (5, "c"), ("5", "\x05\x01c"),
]  # fmt: skip

numbers = st.integers(0, len(PURCHASES) - 1)
types = st.sampled_from([PLACED, CHANGED, REMOVED, SNAPSHOT])
versions = st.integers(0, 5)
some_prices = st.sampled_from(["1.00", "2.50", "0.0000000001", "999999999999999999.9999999999", "0"])
prices = st.from_regex(r"[0-9]{1,18}(\.[0-9]{1,10})?", fullmatch=True)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


def change(number: int, version: int, type: str, hour: float, price: str = "1.00", **more: object) -> Event:
    """A change of one of PURCHASES."""
    order_id, product_name = PURCHASES[number]
    return event(
        type, order_id=order_id, product_name=product_name, version=version, ordered_at=at(hour), price=price, **more
    )


class User:
    """A user's purchases, kept as tables/by_user and tables/product_partials do, on a disk that is two dicts."""

    def __init__(self, most: int = MOST, least: int = LEAST) -> None:
        self.most, self.least = most, least
        self.value: bytes | None = None
        self.offset = 0
        self.beside: dict[bytes, bytes] = {}
        self.totals: dict[str, bytes] = {}

    def add(self, events: Iterable[Event]) -> User:
        """One chunk of the user's events."""
        differences: list[PriceChange] = []
        for one in events:
            self.value = apply_event(
                b"ann", self.value, one, self.offset, self.beside.get, self._forget, self.most, self.least, differences
            )
            self.offset += 1
        for product_name, added in sum_price_changes(Counter(differences)).items():
            self.totals[product_name] = encode_totals(decode_totals(self.totals.get(product_name)) + added)
        return self

    def _forget(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            del self.beside[key]
        else:
            self.beside[key] = value

    def shown(self, limit: int = LIMIT) -> list[Purchase]:
        return newest_purchases(self.value, self.beside.values, limit)

    def summed(self) -> dict[str, tuple[int, Fraction]]:
        """Product -> (purchases, revenue), products without purchases left out."""
        read = {name: decode_totals(value) for name, value in self.totals.items()}
        assert all(totals.revenue == 0 for totals in read.values() if not totals.purchases)
        return {name: (one.purchases, Fraction(one.revenue)) for name, one in read.items() if one.purchases}


def told(calls: Iterable[Iterable[Event]], most: int = MOST, least: int = LEAST) -> User:
    """A user after these chunks."""
    user = User(most, least)
    for events in calls:
        user.add(events)
    return user


# -- the oracle: it keeps every event and shares no code with the folds


def truth(events: Iterable[Event]) -> list[Event]:
    """The newest event of each purchase."""
    newest: dict[tuple, Event] = {}
    for one in events:
        key = (type(one.data.order_id), one.data.order_id, one.data.product_name)
        if key not in newest or strength(one) > strength(newest[key]):
            newest[key] = one
    return list(newest.values())


def strength(one: Event) -> tuple:
    """The newer version; of equal ones the removal; then the greater content, read as text, nothing being least."""
    data = one.data
    content = [str(since_1970(data.ordered_at)), data.price, data.payment_method, data.category]
    return (data.version, one.type == REMOVED, [(text is not None, text or "") for text in content])


def since_1970(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def sql_order(one: Event) -> tuple:
    """ORDER BY ordered_at, order_id, product_name, integers before texts."""
    order_id = one.data.order_id
    number, text = (order_id, b"") if isinstance(order_id, int) else (0, order_id.encode())
    return (one.data.ordered_at, isinstance(order_id, str), number, text, one.data.product_name.encode())


def truly_shown(newest: Iterable[Event], limit: int) -> list[tuple]:
    live = [one for one in newest if one.type != REMOVED]
    return [content(one) for one in sorted(live, key=sql_order, reverse=True)[:limit]]


def content(one: Event) -> tuple:
    data = one.data
    return (
        type(data.order_id), data.order_id, data.product_name, data.version, since_1970(data.ordered_at), data.price,
        data.payment_method, data.category,
    )  # fmt: skip


def as_content(one: Purchase) -> tuple:
    return (
        type(one.order_id), one.order_id, one.product_name, one.version, one.ordered_at, one.price,
        one.payment_method, one.category,
    )  # fmt: skip


def true_sums(newest: Iterable[Event]) -> dict[str, tuple[int, Fraction]]:
    sums: dict[str, tuple[int, Fraction]] = {}
    for one in newest:
        if one.type != REMOVED:
            count, revenue = sums.get(one.data.product_name, (0, Fraction(0)))
            sums[one.data.product_name] = (count + 1, revenue + Fraction(one.data.price))
    return sums


def assert_true(user: User, newest: list[Event]) -> None:
    """Everything that can be asked about the user is what the oracle says."""
    for limit in (1, 2, LIMIT, LEAST, MOST, 10_000):
        assert [as_content(one) for one in user.shown(limit)] == truly_shown(newest, limit)
    assert user.summed() == true_sums(newest)
    assert_sound(user)


def assert_sound(user: User) -> None:
    """What the folds promise of their own bytes: nothing is kept twice, and the floor is true."""
    if user.value is None:
        assert not user.beside
        return
    recent = decode_recent(user.value)
    assert len(recent.purchases) <= user.most
    inline = [one.identity for one in recent.purchases]
    assert len({(type(order_id), order_id, name) for order_id, name in inline}) == len(inline)
    assert (recent.floor is None) == (not user.beside)
    for key, value in user.beside.items():
        one = decode_overflow(value)
        assert key == overflow_key(b"ann", *one.identity)
        assert not one.live or one.ordered_at <= recent.floor
    assert not set(user.beside) & {overflow_key(b"ann", *identity) for identity in inline}


@st.composite
def histories(draw: st.DrawFn, max_size: int = 60) -> list[Event]:
    """Changes of many purchases, which move up and down in time; equal versions may differ in anything."""
    labels = st.sampled_from([None, "", "None", "card"])
    steps = st.tuples(numbers, versions, types, st.integers(-2, 4), some_prices, labels)
    return [
        change(number, version, type, hour, price, payment_method=label)
        for number, version, type, hour, price, label in draw(st.lists(steps, max_size=max_size))
    ]


@st.composite
def histories_of_any_type(draw: st.DrawFn) -> list[Event]:
    """The same with repairs, whose versions nothing else has."""
    history = draw(histories())
    for place, repaired in enumerate(draw(st.lists(st.booleans(), min_size=len(history), max_size=len(history)))):
        if repaired:
            data = msgspec.structs.replace(history[place].data, version=6 + place)
            history[place] = event(REPAIRED, data=data)
    return history


@st.composite
def once_more_in_any_order(draw: st.DrawFn, events: list[Event]) -> list[list[Event]]:
    """The same events, some of them repeated, shuffled and split into chunks."""
    repeated = draw(st.lists(st.sampled_from(events), max_size=10)) if events else []
    shuffled = draw(st.permutations(events + repeated))
    cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=6)))
    return [shuffled[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
