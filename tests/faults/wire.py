"""A TCP connection that a test can cut or let fall silent, as a network does."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from local.process import find_free_port

CHUNK_BYTES = 64 * 1024


class Wire:
    """Whoever connects to `port` of 127.0.0.1 talks to `to`, as long as the wire is whole."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.port = find_free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"wire to {to}", daemon=True)
        self._flows = asyncio.Event()
        self._whole = True
        self._connections: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Wire:
        self._thread.start()
        self._flows.set()
        listening = asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """End every connection, and every new one at once."""
        self._call(self._cut)

    def silence(self) -> None:
        """Keep connections open and deliver nothing; what is sent meanwhile waits."""
        self._call(self._flows.clear)

    def mend(self) -> None:
        """Let everything through again, what has waited first."""
        self._call(self._mend)

    def _call(self, change) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (change(), done.set()))
        assert done.wait(10)

    def _cut(self) -> None:
        self._whole = False
        for one in self._connections:
            one.transport.abort()

    def _mend(self) -> None:
        self._whole = True
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        other = None
        try:
            await self._flows.wait()
            if self._whole:
                there, other = await asyncio.open_connection("127.0.0.1", self.to)
                self._connections.add(other)
                pumps = [asyncio.ensure_future(self._pump(*ends)) for ends in ((reader, other), (there, writer))]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for one in pumps:
                        one.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            for one in (writer, other):
                if one is not None:
                    self._connections.discard(one)
                    one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while sent := await reader.read(CHUNK_BYTES):
                await self._flows.wait()
                writer.write(sent)
                await writer.drain()

    async def _end(self) -> None:
        self._server.close()
        self._cut()
        self._flows.set()
        await asyncio.wait([*asyncio.all_tasks() - {asyncio.current_task()}, asyncio.ensure_future(asyncio.sleep(0))])
