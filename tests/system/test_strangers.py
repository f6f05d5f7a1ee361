"""A client that is no worker joins the consumer group: it gets nothing, is asked nothing, and disturbs nobody."""

from __future__ import annotations

import asyncio
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata

from chunks import PROTOCOL
from tests.kit.authentication import OPERATOR, TOKEN_MODE, ask
from tests.kit.eventually import eventually
from tests.kit.orders import NOW
from tests.kit.stack import Stack, Worker

USERS = [f"user-{number}" for number in range(12)]


class StrangerAssignor(AbstractPartitionAssignor):
    """Sends any data to the leader of the group."""

    name = PROTOCOL
    version = 4
    data = b""
    #: Whether the group has given out its partitions, and what it gave to this member.
    given: list | None = None

    @classmethod
    def metadata(cls, topics):
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), cls.data)

    @classmethod
    def assign(cls, cluster, members):
        raise AssertionError("the stranger became the leader")

    @classmethod
    def on_assignment(cls, assignment):
        cls.given = assignment.partitions()


@contextmanager
def stranger_in(stack: Stack, data: bytes) -> Iterator[type[StrangerAssignor]]:
    """A member of the group that sends `data` as the state of a worker."""
    assignor = type("Stranger", (StrangerAssignor,), {"data": data})
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def join() -> None:
        consumer = AIOKafkaConsumer(
            stack.topic("orders"), bootstrap_servers=stack.servers.kafka, group_id=stack.name,
            partition_assignment_strategy=(assignor,), session_timeout_ms=6_000, enable_auto_commit=False,
        )  # fmt: skip
        await consumer.start()
        try:
            await stop.wait()
        finally:
            await consumer.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(join()))
    thread.start()
    try:
        yield assignor
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


@contextmanager
def web_server() -> Iterator[tuple[str, list[str]]]:
    """The address of an HTTP server, and the headers of the requests that it received."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(str(self.headers))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"purchases": []}')

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def trading(stack: Stack) -> tuple[Stack, list[Worker]]:
    """A shop, its source, and two workers that need tokens."""
    stack.env |= TOKEN_MODE
    stack.create_orders()
    stack.insert(*[(f"o-{user}", "Phone", user, "2.50", NOW, "card") for user in USERS])
    stack.setup()
    stack.source()
    workers = [stack.worker(f"worker-{number}").start() for number in range(2)]
    for worker in workers:
        worker.wait_ready()
    return stack, workers


def bought(worker: Worker, user: str) -> list[str]:
    """The orders of a user in the answer from a table."""
    answer = ask(worker, f"/v1/users/{user}/purchases", OPERATOR)
    assert answer.status == 200, answer
    assert answer.json["meta"]["role"] == "active"
    return [one["order_id"] for one in answer.json["purchases"]]


def assert_all_answer(workers: list[Worker]) -> None:
    """Each worker answers for each user, from a table."""
    for worker in workers:
        for user in USERS:
            assert bought(worker, user)[-1:] == [f"o-{user}"]


@pytest.mark.cost(30)
@pytest.mark.parametrize("data", [b"garbage", zlib.compress(b"null"), b""], ids=["garbage", "null", "empty"])
def test_a_member_with_any_data_gets_no_partitions_and_ends_no_worker(trading, data: bytes):
    stack, workers = trading
    eventually(lambda: assert_all_answer(workers), within=30)
    with stranger_in(stack, data) as stranger:
        eventually(lambda: stranger.given == [], within=30)
        eventually(lambda: assert_all_answer(workers), within=30)
        stack.insert(("late", "Case", "user-0", "1.00", NOW, "card"))
        eventually(lambda: set(bought(workers[0], "user-0")) == {"late", "o-user-0"}, within=30)
    assert all(worker.process.is_running for worker in workers)
    assert any("gets no partitions" in worker.process.tail(200) for worker in workers)


@pytest.mark.cost(20)
def test_an_address_that_no_worker_has_signed_receives_no_request(trading):
    stack, workers = trading
    with web_server() as (address, requests):
        held = {stack.topic("by_user-changelog"): {str(number): 10**9 for number in range(8)}}
        state = {"url": address, "signature": "0" * 64, "changelogs": list(held), "held": held}
        with stranger_in(stack, zlib.compress(json.dumps(state).encode())) as stranger:
            eventually(lambda: stranger.given == [], within=30)
            eventually(lambda: assert_all_answer(workers), within=30)
        assert requests == []
