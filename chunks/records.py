"""Records of one partition as plain tuples, the unit of fetches, folds and rebuilds."""

from __future__ import annotations

from typing import NamedTuple

#: Offset, key and value.
FetchedRecord = tuple[int, bytes | None, bytes | None]
Headers = list[tuple[str, bytes]]

#: The maximum number of records in one agent step. A step takes some milliseconds: web requests are
#: answered between two steps.
CHUNK_RECORDS = 500

#: How long the broker may delay a response without records. Partitions fetched together wait for
#: each other so long.
FETCH_MAX_WAIT_MS = 50


class RecordRange(NamedTuple):
    """All records of one partition from offset `first` up to, not including, `next`.

    `end` is the high watermark of the partition when the records were fetched.
    """

    first: int
    next: int
    records: list[FetchedRecord]
    end: int = 0
