"""Asks a server what random users bought, over connections that stay open, and prints how long each answer took.

A process of its own: `python -m bench.query_client PORT USERS RATE SECONDS`. RATE 0 asks as fast as 16 connections can;
SECONDS 0 goes on until standard input is closed. Written on bare connections so that the asking costs little of what
it measures.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable

from bench.data import user_id

SECONDS_TO_WAIT = 10
CONNECTIONS = 16
NO_ANSWER = 0


class Connection(asyncio.Protocol):
    """One connection: a request, its answer, then the next request."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.status: asyncio.Future[int] | None = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, user: str) -> asyncio.Future[int]:
        """The status of the answer, once all of the answer is there."""
        self.status = asyncio.get_running_loop().create_future()
        self.transport.write(f"GET /v1/users/{user}/purchases HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return self.status

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            self.received = b""
            if not self.status.done():
                self.status.set_result(int(head.split(b" ", 2)[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.status is not None and not self.status.done():
            self.status.set_exception(exc or ConnectionResetError("the server has closed the connection"))


class Asker:
    """A pool of open connections to one server, and what came of every query."""

    def __init__(self, port: int, users: int) -> None:
        self.port = port
        self.users = users
        self.idle: list[Connection] = []
        self.dice = random.Random(7)  # noqa: S311 - the same users at every run
        self.answers: list[tuple[float, int]] = []

    async def ask(self) -> None:
        """Ask once and note the milliseconds and the status."""
        user = user_id(self.dice.randrange(self.users))
        began = time.perf_counter()
        while self.idle and self.idle[-1].transport.is_closing():
            self.idle.pop()  # closed by the server, as it was idle for too long
        try:
            connection = self.idle.pop() if self.idle else await self.connected()
            overdue = asyncio.get_running_loop().call_later(SECONDS_TO_WAIT, connection.transport.abort)
            try:
                status = await connection.ask(user)
            finally:
                overdue.cancel()
            self.idle.append(connection)
        except OSError:
            status = NO_ANSWER
        self.answers.append((round((time.perf_counter() - began) * 1000, 3), status))

    async def connected(self) -> Connection:
        """A new connection."""
        return (await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port))[1]

    async def at_rate(self, rate: float, done: Callable[[], bool]) -> None:
        """Ask at fixed times, whether or not earlier queries are answered: a slow answer hides no others."""
        began, number, asked = time.perf_counter(), 0, set()
        while not done():
            asked.add(task := asyncio.create_task(self.ask()))
            task.add_done_callback(asked.discard)
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        await asyncio.gather(*asked)

    async def at_full_speed(self, done: Callable[[], bool]) -> None:
        """Ask again as soon as an answer is there, on all connections."""

        async def on_one() -> None:
            while not done():
                await self.ask()

        await asyncio.gather(*(on_one() for _ in range(CONNECTIONS)))


async def main(port: int, users: int, rate: float, seconds: float) -> None:
    """Ask until the time is over and print the answers as JSON."""
    asker, began = Asker(port, users), time.perf_counter()
    closed = asyncio.create_task(asyncio.to_thread(sys.stdin.read)) if not seconds else None

    def done() -> bool:
        return closed.done() if closed else time.perf_counter() - began > seconds

    work: Awaitable[None] = asker.at_rate(rate, done) if rate else asker.at_full_speed(done)
    await work
    spent = time.perf_counter() - began
    print(json.dumps({"seconds": spent, "answers": asker.answers}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
