"""Errors of the engine; each message names the cause and the next step."""


class ChunkError(Exception):
    """An error after which the engine cannot continue."""


class Fenced(ChunkError):
    """Another worker owns the partition; the broker discarded the uncommitted work of this one."""


class RecordRefused(ChunkError):
    """Kafka refused a record that the state depends on, so nothing after it is committed."""


class GroupUnavailable(ChunkError):
    """The group of workers cannot be joined, or was lost, and waiting does not help."""


class RecordGap(ChunkError):
    """Records between the last chunk of a partition and the next one are missing."""


class IncompleteRestore(ChunkError):
    """A restore from a dump has replaced only some values of a table."""


class ClosedPartition(ChunkError):
    """A partition of a table is not open, or no longer open, on this worker."""


class DiskFailed(ClosedPartition):
    """Files of a table cannot be read or written; the changelog contains their data."""


class UnsupportedLibrary(ChunkError):
    """An installed library is not the version that this engine was tested with."""
