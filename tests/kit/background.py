"""Something that goes on beside a test, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(work: Callable[[threading.Event], None], within_s: float | None = None) -> Iterator[None]:
    """Let `work` run for as long as this is entered; then its event is set, and what it has raised is raised.

    Its end is awaited for `within_s` seconds; None: for ever.
    """
    ended = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work(ended)
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=run, name="beside")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(within_s)
    if failures:
        raise failures[0]
