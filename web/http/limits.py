"""Limits on the requests of one client."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Timeout for the headers and the body of a request, for an idle connection, and for a client that
#: does not read its response; the connection is closed.
TIMEOUT_S = 8.0
#: A product name has up to 1,024 characters, each of up to 4 bytes, which are 12 in a URL.
MAX_LINE_BYTES = 16_384
#: Differs from the line's limit: the number in aiohttp's exception distinguishes the two errors.
MAX_HEADER_BYTES = 8190
MAX_HEADERS = 100
#: Limit of all headers together; those of a browser have 2 KiB. FEW_HEADERS or fewer cannot exceed it.
MAX_HEADERS_BYTES = 32_768
FEW_HEADERS = MAX_HEADERS_BYTES // MAX_HEADER_BYTES
#: Limit of the values of Accept together: each of their ranges is parsed.
MAX_ACCEPT_CHARS = 2_048


class Limiter:
    """A token bucket per client, stored as one time (generic cell rate algorithm, ITU-T I.371).

    A client may send `per_second` requests at once and `per_second` in every second after that.
    With more than `clients` clients, the least recently seen client is forgotten.
    """

    def __init__(self, per_second: int, *, clients: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s, self._max_clients, self._clock = 1 / per_second, clients, clock
        self._busy_until: dict[str, float] = {}

    def take(self, client: str) -> float:
        """Count a request of `client`; return 0 if it is allowed, else the seconds until one is."""
        now = self._clock()
        busy_until = max(self._busy_until.pop(client, now), now)
        wait_s = busy_until + self._interval_s - now - 1
        # The tolerance absorbs rounding: ten times 0.1 is not exactly 1.
        if wait_s <= 1e-6:
            busy_until, wait_s = busy_until + self._interval_s, 0.0
        self._busy_until[client] = busy_until
        if len(self._busy_until) > self._max_clients:
            del self._busy_until[next(iter(self._busy_until))]
        return wait_s
