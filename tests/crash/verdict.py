"""The verdict on a run: everything the workers know, compared with the truth, exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random

from chunks import BEGINNING_KEY, RESERVED_PREFIX, Store
from domain.purchases import Purchase, all_purchases, newest_purchases
from domain.totals import sum_partials
from tests.crash import log
from tests.crash.orders import PARTITIONS
from tests.crash.run import TABLES, Run
from tests.crash.truth import ExpectedPurchase, Truth, moment
from tests.kit.eventually import eventually

SHOWN = 20
ALL = 10**9
ASKED = 300
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def verify(run: Run, copies: int = 1) -> None:
    """Once all is read: ask the workers, stop them, and compare their disks, the changelogs and the truth.

    `copies` is how many workers at least must hold all of each partition.
    """
    run.wait_until_through()
    ask(run)
    run.stop(*run.running())
    tables = {table: {} for table in TABLES}
    for table in TABLES:
        for partition in range(PARTITIONS):
            tables[table].update(agreed(run, table, partition, copies))
    check_users(tables["by_user"], run.truth)
    same("products on disk", {
        key.decode(): totals(sum_partials(value)) for key, value in tables["by_product"].items()
    }, run.truth.products)  # fmt: skip


def ask(run: Run) -> None:
    """Ask every worker in turn, over HTTP, for the busiest users, for some others, and for all products.

    While the workers still count co-purchases, an owner may take longer than LATELY_FORWARD_MS: 503, ask again.
    """
    workers, dice = run.running(), Random(run.name)
    busiest = sorted(run.truth.purchases, key=lambda user: len(run.truth.purchases[user]))[-20:]
    for number, user in enumerate([*busiest, *dice.sample(sorted(run.truth.purchases), ASKED - len(busiest))]):
        said = [
            ExpectedPurchase(order, product, price, moment(at), payment)
            for order, product, price, at, payment in eventually(
                partial(workers[number % len(workers)].purchases, user), within=30
            )
        ]
        same(f"HTTP, {user}", dict(enumerate(said)), dict(enumerate(run.truth.purchases[user][:SHOWN])))
    said = {}
    for number, product in enumerate(run.truth.products):
        count, revenue = eventually(partial(workers[number % len(workers)].totals, product), within=30)
        said[product] = (count, Decimal(revenue))
    same("products over HTTP", said, run.truth.products)


@dataclass
class Copy:
    """One partition of one table on the disk of one worker that is gone."""

    path: Path
    offset: int
    content: dict[bytes, bytes]


def agreed(run: Run, table: str, partition: int, copies: int) -> dict[bytes, bytes]:
    """The content of a partition: the newest values of its changelog.

    Every copy on every disk must be the changelog as it was at the copy's offset, and the newest copies be complete.
    The source position in the changelog must only grow: where two owners had written, it would go back.
    """
    found = sorted(on_disk(run, table, partition), key=lambda copy: copy.offset)
    newest: dict[bytes, bytes] = {}
    position = -1
    for offset, key, value in log.records(run.kafka, run.changelog(table), partition):
        while found and found[0].offset <= offset:
            old = found.pop(0)
            same(f"{old.path} at {old.offset}", old.content, newest)
        if key == BEGINNING_KEY:
            newest, position = {}, -1
        elif key.startswith(RESERVED_PREFIX):
            assert int(value) > position, f"{run.changelog(table)}[{partition}]@{offset}: {value} after {position}"
            position = int(value)
        elif value is None:
            newest.pop(key, None)
        else:
            newest[key] = value
    for copy in found:
        same(f"{copy.path} at {copy.offset}, the end", copy.content, newest)
    assert len(found) >= copies, f"{table}[{partition}] is complete only in {[copy.path for copy in found]}"
    return newest


def on_disk(run: Run, table: str, partition: int) -> Iterator[Copy]:
    """The copies of a partition on the workers' disks."""
    for path in run.folder.glob(f"*/**/{table}-{partition}.db"):
        store = Store(path).open()
        yield Copy(path.relative_to(run.folder), store.offset, dict(store.scan()))
        store.close()


def check_users(by_user: Mapping[bytes, bytes], truth: Truth) -> None:
    """Compare what is shown of each user, and all that is known of each."""
    recent: dict[str, bytes] = {}
    others: dict[str, list[bytes]] = {}
    for key, value in by_user.items():
        user, separator, _ = key.partition(b"\x00")
        if separator:
            others.setdefault(user.decode(), []).append(value)
        else:
            recent[user.decode()] = value
    for limit in (SHOWN, ALL):
        said = {
            user: [purchase(one) for one in newest_purchases(value, lambda user=user: others.get(user, ()), limit)]
            for user, value in recent.items()
        }
        same("users on disk", said, {user: mine[:limit] for user, mine in truth.purchases.items()})
    assert not others.keys() - recent.keys()
    same("versions and offsets on disk", {
        (user, *one.identity): (one.version, one.offset)
        for user, value in recent.items() for one in all_purchases(value, others.get(user, ()))
    }, truth.said)  # fmt: skip


def purchase(one: Purchase) -> ExpectedPurchase:
    return ExpectedPurchase(
        one.order_id, one.product_name, one.price, EPOCH + timedelta(microseconds=one.ordered_at), one.payment_method
    )


def totals(one) -> tuple[int, Decimal]:
    return (one.purchases, one.revenue)


def same(what: str, said: Mapping, expected: Mapping) -> None:
    """Raise AssertionError that shows the first differences."""
    if said == expected:
        return
    wrong = [key for key in {**expected, **said} if said.get(key) != expected.get(key)]
    shown = "\n".join(f"{key!r}: {said.get(key)!r}\n  is not {expected.get(key)!r}" for key in wrong[:3])
    raise AssertionError(f"{what}: {len(wrong)} of {len(expected)} differ:\n{shown}")
