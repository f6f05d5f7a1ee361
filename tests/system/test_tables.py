"""`lately tables`: what is restored from a dump, and read on from there, is what would be there without it."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from app.topics import DUMPED_TABLES, TABLES
from commands.tables import dump_file
from tables.similar import current_hour
from tests.kit.background import beside
from tests.kit.co_purchases import (
    PRODUCTS,
    USERS,
    assert_all_equal_to_sql,
    assert_co_purchases_equal_sql,
    place_random_orders,
)
from tests.kit.commands import start_lately
from tests.kit.eventually import eventually
from tests.kit.orders import NOW, buy, cancel
from tests.kit.stack import Stack, Worker

pytestmark = pytest.mark.partitions(4)


def tables(stack: Stack, *words: str, code: int = 0) -> list[dict]:
    """What `lately tables … --json` says."""
    process = stack.lately("tables", *words, "--json")
    lines = process.tail(1_000).splitlines()
    if process.child.returncode not in (0, 2):
        raise RuntimeError(process.tail())
    assert process.child.returncode == code, lines
    return [json.loads(line) for line in lines if line.startswith("{")]


def refused(stack: Stack, *words: str) -> str:
    """What `lately tables …` says when it ends with 2."""
    process = stack.lately("tables", *words)
    assert process.child.returncode == 2, process.tail()
    return process.tail()


def digests(where: Worker | Path, tables: tuple[str, ...] = TABLES) -> dict[tuple, tuple]:
    """Table and partition -> keys and digest."""
    if isinstance(where, Path):
        said = [msgspec.structs.asdict(one) for one in dump_file.verify_dump(where).parts]
    else:
        said = [where.get(f"/v1/tables/{table}/{number}/digest").json for table in tables for number in range(4)]
    return {(one["table"], one["partition"]): (one["keys"], one["digest"]) for one in said}


def assert_same(found: dict[tuple, tuple], expected: dict[tuple, tuple], hour: int) -> None:
    """The tables are those of `hour`. If another hour has begun, two tables count there what is applied again."""
    counted_by_hour = () if current_hour() == hour else ("similar", "product_sales")
    different = {one for one in expected if found[one] != expected[one]}
    assert {one for one in different if one[0] not in counted_by_hour} == set()
    assert {one: keys for one, (keys, _) in found.items()} == {one: keys for one, (keys, _) in expected.items()}


def ends(stack: Stack) -> list[int]:
    """Where the changelogs end."""
    return [stack.high_watermark(f"{table}-changelog") for table in TABLES]


@contextmanager
def trading(shop: Stack) -> Iterator[None]:
    """Orders come and go all the time."""
    dice = random.Random(5)

    def trade_on(ended: threading.Event) -> None:
        number = 0
        while not ended.wait(0.02):
            number += 1
            buy(shop, (dice.choice(USERS), dice.choice(PRODUCTS)), at=NOW - timedelta(seconds=number))
            if number % 3 == 0:
                cancel(shop, dice.choice(USERS), dice.choice(PRODUCTS))

    with beside(trade_on):
        yield


def wait_equal(shop: Stack, worker: Worker) -> None:
    """Until all that can be asked is what SQL says."""
    eventually(shop.outbox_is_empty, within=60)
    eventually(lambda: assert_all_equal_to_sql(shop, worker), within=60)
    eventually(lambda: assert_co_purchases_equal_sql(shop, worker), within=60)


@pytest.mark.cost(40)
@pytest.mark.parametrize("orders", [300, pytest.param(1_000, marks=pytest.mark.slow)])
def test_a_dump_under_load_is_restored_and_read_on_from_and_nothing_differs(stack: Stack, tmp_path: Path, orders: int):
    early, late = tmp_path / "early.dump", tmp_path / "late.dump"
    stack.create_orders()
    stack.setup()
    stack.source()
    worker = stack.worker().start().wait_ready()
    place_random_orders(stack, random.Random(11), orders)
    with trading(stack):
        eventually(lambda: worker.events() > 300, within=60)
        (said,) = tables(stack, "dump", str(early))
    wait_equal(stack, worker)
    without, hour = digests(worker), current_hour()
    assert digests(early) != without
    assert said["keys"] == sum(keys for keys, _ in digests(early).values())

    # At rest the dump is what the worker has.
    tables(stack, "dump", str(late))
    assert digests(late) == digests(worker, DUMPED_TABLES)
    of_workers = tables(stack, "digest", "--worker", f"http://127.0.0.1:{worker.port}", "--table", "by_user")
    assert of_workers == tables(stack, "digest", str(late), "--table", "by_user")
    assert [one["partition"] for one in of_workers] == [0, 1, 2, 3]

    assert "stop them" in refused(stack, "restore", str(early))
    worker.stop()
    stack.wipe(worker)
    eventually(lambda: tables(stack, "restore", str(early), "--dry-run"), within=30)

    # What is damaged, or does not fit, writes nothing.
    before, whole, damaged = ends(stack), early.read_bytes(), tmp_path / "damaged.dump"
    damaged.write_bytes(whole[: len(whole) // 2])
    assert "use another dump" in refused(stack, "restore", str(damaged))
    stack.env["LATELY_PARTITIONS"] = "5"
    assert "4 partitions" in refused(stack, "restore", str(early))
    stack.env["LATELY_PARTITIONS"] = "4"
    assert ends(stack) == before

    # Killed in the middle, it lets no worker begin, and no dump either.
    restoring = start_lately(stack, "tables", "restore", str(early))
    eventually(lambda: ends(stack) != before, within=30)
    restoring.kill()
    halted = stack.worker("halted").start()
    eventually(lambda: not halted.process.is_running, within=60)
    assert "run it again to its end" in halted.process.tail()
    assert "half restored" in refused(stack, "dump", str(tmp_path / "half.dump"))
    assert not list(tmp_path.glob("half*"))

    def restored() -> list[dict]:
        return tables(stack, "restore", str(early))

    # The worker that was refused is a member of the group until its session ends.
    (done,) = eventually(restored, within=30)
    assert (done["values"] > 0, done["made_at"]) == (True, said["made_at"])
    tables(stack, "dump", str(tmp_path / "again.dump"))
    assert digests(tmp_path / "again.dump") == digests(early)
    worker = stack.worker().start().wait_ready()
    wait_equal(stack, worker)
    assert_same(digests(worker), without, hour)

    # And with the disk that it had, ahead of the dump.
    worker.stop()
    eventually(restored, within=30)
    worker.start()
    worker.wait_ready()
    wait_equal(stack, worker)
    assert_same(digests(worker), without, hour)
    buy(stack, ("ann", "Phone 1"), ("ann", "té"))
    wait_equal(stack, worker)
