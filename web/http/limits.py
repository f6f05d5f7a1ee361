"""How much one client may ask of a worker."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A request whose headers or body are not complete after so long, an idle connection, and a client that does not fetch
#: its answer are given up.
PATIENCE_S = 8.0
MAX_LINE_BYTES = 8192
#: Not the same as the line's, which tells the two errors apart.
MAX_HEADER_BYTES = 8190
MAX_HEADERS = 100


class Limiter:
    """A token bucket per client, kept as one time each (the generic cell rate algorithm, ITU-T I.371).

    A client may send `per_second` requests at once, and as many in every second after. Of more than `clients` clients
    the one that was not heard of for longest is forgotten.
    """

    def __init__(self, per_second: int, *, clients: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause, self._clients, self._clock = 1 / per_second, clients, clock
        self._busy_until: dict[str, float] = {}

    def take(self, client: str) -> float:
        """Count a request of `client`: 0 if it may pass, else the seconds until one may."""
        now = self._clock()
        busy_until = max(self._busy_until.pop(client, now), now)
        wait = busy_until + self._pause - now - 1
        # An allowance, because ten times 0.1 is not quite 1.
        if wait <= 1e-6:
            busy_until, wait = busy_until + self._pause, 0.0
        self._busy_until[client] = busy_until
        if len(self._busy_until) > self._clients:
            del self._busy_until[next(iter(self._busy_until))]
        return wait
