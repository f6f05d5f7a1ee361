"""Shops that run for all tests at once: each test places orders under names of its own, and reads them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.kit import shared
from tests.kit.stack import Servers, Stack, Worker


@dataclass(frozen=True)
class SharedShop:
    """A shop, its source and one worker, as one test sees them: what it names begins with a prefix of its own."""

    stack: Stack
    worker: Worker
    prefix: str

    def name(self, text: str) -> str:
        """A user, order or product that no other test uses."""
        return f"{self.prefix}{text}"

    def names(self, *texts: str) -> list[str]:
        """Several of them, which sort like `texts`."""
        return [self.name(text) for text in texts]


def join_shop(run: Path, servers: Servers, name: str, **env: str) -> SharedShop:
    """The shared shop of this name, whose worker has these settings; the first test that asks for it starts it."""

    def start(folder: Path) -> dict:
        stack = Stack(servers, folder).__enter__()
        stack.create_orders()
        stack.setup()
        stack.source()
        worker = stack.worker(**env).start().wait_ready()
        for process in stack.processes:
            shared.detach(process)
        return {"stack": stack.name, "port": worker.port}

    address = shared.start_once(run, f"shop-{name}", start)
    stack = Stack(servers, run / shared.FOLDER / f"shop-{name}", address["stack"])
    worker = stack.worker(**env)
    worker.port = address["port"]
    return SharedShop(stack, worker, f"{uuid.uuid4().hex[:6]}-")
