"""One topic of orders for all runs, and the truth about it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.orders import PARTITIONS, fill
from tests.crash.run import Run
from tests.crash.truth import Truth, truth
from tests.kit.depth import IS_FULL
from tests.kit.shared import start_once

ORDERS = int(os.environ.get("CRASH_ORDERS", "40000" if IS_FULL else "10000"))
USERS = int(os.environ.get("CRASH_USERS", "5000" if IS_FULL else "1250"))


@dataclass(frozen=True)
class Shop:
    """A topic full of orders."""

    kafka: str
    prefix: str
    truth: Truth


def open_shop(kafka: str) -> Shop:
    """Fill a topic with ORDERS purchases of USERS users and find out what is true of it."""
    return read_shop(kafka, fill_topic(kafka))


def fill_topic(kafka: str) -> str:
    """The prefix of a new topic with ORDERS purchases of USERS users."""
    prefix = f"crash-{uuid.uuid4().hex[:6]}-"
    fill(kafka, f"{prefix}orders", ORDERS, USERS)
    return prefix


def read_shop(kafka: str, prefix: str) -> Shop:
    """The shop of a topic, with what is true of it."""
    return Shop(kafka, prefix, truth(kafka, f"{prefix}orders", PARTITIONS))


@pytest.fixture(scope="session")
def shop(kafka: str, run_folder: Path) -> Shop:
    """The orders that all runs share, in whatever process."""
    return read_shop(kafka, start_once(run_folder, "crash", lambda _: {"prefix": fill_topic(kafka)})["prefix"])


@pytest.fixture
def run(shop: Shop, tmp_path: Path) -> Iterator[Run]:
    """A run with one worker at a time."""
    with Run(shop.kafka, shop.prefix, shop.truth, tmp_path, LATELY_SESSION_TIMEOUT_S="3") as one:
        yield one


@pytest.fixture
def shared(shop: Shop, tmp_path: Path) -> Iterator[Run]:
    """A run with several workers, each partition on two of them."""
    with Run(shop.kafka, shop.prefix, shop.truth, tmp_path, LATELY_STANDBY_REPLICAS="1") as one:
        yield one
