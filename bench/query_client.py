"""Queries purchases of random users over persistent connections, and prints the response times.

Run it as a process: `python -m bench.query_client PORT USERS RATE SECONDS`. RATE 0: as fast as 16
connections can. SECONDS 0: until standard input is closed. It uses plain connections, so that the
client uses little of the processor time that it measures.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable

from bench.data import user_id

RESPONSE_TIMEOUT_S = 10
CONNECTIONS = 16
NO_ANSWER = 0


class Connection(asyncio.Protocol):
    """One connection: it sends a request after the response to the one before."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.status: asyncio.Future[int] | None = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send_request(self, user: str) -> asyncio.Future[int]:
        """Send a request; the result is the status when the response is complete."""
        self.status = asyncio.get_running_loop().create_future()
        self.transport.write(f"GET /v1/users/{user}/purchases HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return self.status

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if separator and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            self.received = b""
            if not self.status.done():
                self.status.set_result(int(head.split(b" ", 2)[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.status is not None and not self.status.done():
            self.status.set_exception(exc or ConnectionResetError("the server has closed the connection"))


class QueryClient:
    """A pool of connections to one server, and the results of all queries."""

    def __init__(self, port: int, users: int) -> None:
        self.port = port
        self.users = users
        self.idle: list[Connection] = []
        self.dice = random.Random(7)  # noqa: S311 - a benchmark needs repeatable users
        self.answers: list[tuple[float, int]] = []

    async def send_query(self) -> None:
        """Send one query, and store its milliseconds and status."""
        user = user_id(self.dice.randrange(self.users))
        began = time.perf_counter()
        while self.idle and self.idle[-1].transport.is_closing():
            self.idle.pop()  # the server closed it after its idle timeout
        try:
            connection = self.idle.pop() if self.idle else await self.open_connection()
            overdue = asyncio.get_running_loop().call_later(RESPONSE_TIMEOUT_S, connection.transport.abort)
            try:
                status = await connection.send_request(user)
            finally:
                overdue.cancel()
            self.idle.append(connection)
        except OSError:
            status = NO_ANSWER
        self.answers.append((round((time.perf_counter() - began) * 1000, 3), status))

    async def open_connection(self) -> Connection:
        """Open a connection."""
        return (await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port))[1]

    async def run_at_rate(self, rate: float, done: Callable[[], bool]) -> None:
        """Send queries at fixed times, so that a slow response does not delay later queries."""
        began, number, tasks = time.perf_counter(), 0, set()
        while not done():
            tasks.add(task := asyncio.create_task(self.send_query()))
            task.add_done_callback(tasks.discard)
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        await asyncio.gather(*tasks)

    async def run_at_full_speed(self, done: Callable[[], bool]) -> None:
        """Send the next query after each response, on all connections."""

        async def run_connection() -> None:
            while not done():
                await self.send_query()

        await asyncio.gather(*(run_connection() for _ in range(CONNECTIONS)))


async def main(port: int, users: int, rate: float, seconds: float) -> None:
    """Send queries until the time is over, and print the results as JSON."""
    client, began = QueryClient(port, users), time.perf_counter()
    closed = asyncio.create_task(asyncio.to_thread(sys.stdin.read)) if not seconds else None

    def done() -> bool:
        return closed.done() if closed else time.perf_counter() - began > seconds

    work: Awaitable[None] = client.run_at_rate(rate, done) if rate else client.run_at_full_speed(done)
    await work
    spent = time.perf_counter() - began
    print(json.dumps({"seconds": spent, "answers": client.answers}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
