"""Asks a worker what random users bought, over connections that stay open, and prints how long each answer took.

A process of its own: `python -m bench.ask PORT USERS RATE SECONDS`. RATE 0 asks as fast as 8 connections can; SECONDS 0
goes on until standard input is closed. Written on bare sockets so that the asking costs little of what it measures.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

from bench.data import user_id

SECONDS_TO_WAIT = 10
CONNECTIONS = 8
NO_ANSWER = 0


class Asker:
    """A pool of open connections to one worker, and what came of every query."""

    def __init__(self, port: int, users: int) -> None:
        self.port = port
        self.users = users
        self.idle: list[tuple[StreamReader, StreamWriter]] = []
        self.dice = random.Random(7)  # noqa: S311 - the same users at every run
        self.answers: list[tuple[float, int]] = []

    async def ask(self) -> None:
        """Ask once and note the milliseconds and the status."""
        user = user_id(self.dice.randrange(self.users))
        began = time.perf_counter()
        try:
            status = await asyncio.wait_for(self.exchange(user), SECONDS_TO_WAIT)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            status = NO_ANSWER
        self.answers.append((round((time.perf_counter() - began) * 1000, 3), status))

    async def exchange(self, user: str) -> int:
        """Send one request on an idle connection, or on a new one, and read the whole answer."""
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"GET /v1/users/{user}/purchases HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
        except BaseException:
            writer.close()
            raise
        self.idle.append((reader, writer))
        return int(head.split(b" ", 2)[1])

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
