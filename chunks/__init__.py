"""Chunked Faust: agent steps over whole chunks; state and position are in one transaction.

The engine contains nothing about orders. `README.md` in this folder lists its invariants and the
Faust behaviour that it replaces.

Other packages import from `chunks`, not from its modules. The names are loaded on first use: `from
chunks import ChunkError` imports neither Faust's tables nor RocksDB, so commands that need no table
start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chunks.app import ChunkedApp
    from chunks.assignment import PROTOCOL
    from chunks.batches import read_tolerantly
    from chunks.check import check_libraries
    from chunks.chunk import Chunk
    from chunks.distribution import GroupDistribution, decode_distribution
    from chunks.errors import (
        ChunkError,
        ClosedPartition,
        DiskFailed,
        Fenced,
        GroupUnavailable,
        IncompleteRestore,
        RecordGap,
        RecordRefused,
        UnsupportedLibrary,
    )  # fmt: skip
    from chunks.fetch import fetch_ranges, high_watermark, tune_consumer
    from chunks.follower import ChangelogFollower, Rows
    from chunks.keys import BEGINNING_KEY, RESERVED_PREFIX, RESTORING_KEY, position_key
    from chunks.lost import Loss
    from chunks.partition_task import BATCH_BYTES, MAX_REQUEST_BYTES, TRANSACTION_TIMEOUT_MS
    from chunks.reader import StoreReader, TableReader
    from chunks.record_batch import UnreadableBytes
    from chunks.records import FETCH_MAX_WAIT_MS, FetchedRecord, Headers, RecordRange
    from chunks.restore import RestoreProgress
    from chunks.schema import ChunkSchema
    from chunks.snapshot import StoreSnapshot
    from chunks.standby import StandbyCheck, discard_exception
    from chunks.store import LocalOffset, Store
    from chunks.table import Table
    from chunks.transactions import transactional_id
    from chunks.view import TableView
    from chunks.watch import Watch

#: Module -> the names that it contributes to this package's interface.
_EXPORTS = {
    "app": ("ChunkedApp",),
    "assignment": ("PROTOCOL",),
    "batches": ("read_tolerantly",),
    "check": ("check_libraries",),
    "chunk": ("Chunk",),
    "distribution": ("GroupDistribution", "decode_distribution"),
    "errors": (
        "ChunkError", "ClosedPartition", "DiskFailed", "Fenced", "GroupUnavailable", "IncompleteRestore", "RecordGap",
        "RecordRefused", "UnsupportedLibrary",
    ),
    "fetch": ("fetch_ranges", "high_watermark", "tune_consumer"),
    "follower": ("ChangelogFollower", "Rows"),
    "keys": ("BEGINNING_KEY", "RESERVED_PREFIX", "RESTORING_KEY", "position_key"),
    "lost": ("Loss",),
    "partition_task": ("BATCH_BYTES", "MAX_REQUEST_BYTES", "TRANSACTION_TIMEOUT_MS"),
    "reader": ("StoreReader", "TableReader"),
    "record_batch": ("UnreadableBytes",),
    "records": ("FETCH_MAX_WAIT_MS", "FetchedRecord", "Headers", "RecordRange"),
    "restore": ("RestoreProgress",),
    "schema": ("ChunkSchema",),
    "standby": ("StandbyCheck", "discard_exception"),
    "snapshot": ("StoreSnapshot",),
    "store": ("LocalOffset", "Store"),
    "table": ("Table",),
    "transactions": ("transactional_id",),
    "view": ("TableView",),
    "watch": ("Watch",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "BATCH_BYTES", "BEGINNING_KEY", "FETCH_MAX_WAIT_MS", "MAX_REQUEST_BYTES", "PROTOCOL", "RESERVED_PREFIX",
    "RESTORING_KEY", "TRANSACTION_TIMEOUT_MS", "ChangelogFollower", "Chunk", "ChunkError", "ChunkSchema", "ChunkedApp",
    "ClosedPartition", "DiskFailed", "Fenced", "FetchedRecord", "GroupDistribution", "GroupUnavailable", "Headers",
    "IncompleteRestore", "LocalOffset", "Loss", "RecordGap", "RecordRange", "RecordRefused", "RestoreProgress",
    "Rows", "StandbyCheck", "Store", "StoreReader", "StoreSnapshot", "Table", "TableReader", "TableView",
    "UnreadableBytes", "UnsupportedLibrary", "Watch", "check_libraries", "decode_distribution", "discard_exception",
    "fetch_ranges", "high_watermark", "position_key", "read_tolerantly", "transactional_id", "tune_consumer",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"chunks.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
