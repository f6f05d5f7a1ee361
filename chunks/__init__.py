"""Chunked Faust: whole fetched chunks through one agent step, with state and source position in one transaction.

Knows nothing of orders. `README.md` beside this file has the invariants and what of Faust is replaced.
"""

from chunks.chunk import Chunk
from chunks.errors import ChunkError, ClosedPartition, Fenced, Unsupported
from chunks.lost import Loss
from chunks.schema import ChunkSchema
from chunks.watch import Watch

__all__ = ["Chunk", "ChunkError", "ChunkSchema", "ClosedPartition", "Fenced", "Loss", "Unsupported", "Watch"]
