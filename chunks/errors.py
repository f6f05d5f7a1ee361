"""Named errors of the engine; the message names the cause and the next step."""


class ChunkError(Exception):
    """Anything that the engine cannot go on after."""


class Fenced(ChunkError):
    """Another worker owns the partition now; what this one had not committed was discarded by the broker."""


class RecordRefused(ChunkError):
    """Kafka refused a record that the state depends on, so nothing after it is committed."""


class GroupUnavailable(ChunkError):
    """The group of workers cannot be joined, or was lost, for a reason that no waiting mends."""


class RecordGap(ChunkError):
    """Records between the last chunk of a partition and the next one are missing."""


class IncompleteRestore(ChunkError):
    """The values of a table are being replaced by those of a dump, and not all of them are there yet."""


class ClosedPartition(ChunkError):
    """A table was asked for a partition that is not open on this worker (any more)."""


class DiskFailed(ClosedPartition):
    """Files of a table cannot be read or written; what they hold is in the changelog."""


class UnsupportedLibrary(ChunkError):
    """An installed library is not the one this engine was tested with."""
