"""Faust's app, with the types of the parts that the engine replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faust
from faust.types import TopicT

from chunks.schema import ChunkSchema

if TYPE_CHECKING:
    from chunks.assignor import Assignor
    from chunks.consumer import Consumer
    from chunks.manager import TableManager
    from chunks.table import Table as ChunkTable
    from chunks.transport import Transport


class ChunkedApp(faust.App):
    """A Faust app whose tables, consumer and assignor are the engine's."""

    if TYPE_CHECKING:
        assignor: Assignor
        consumer: Consumer
        tables: TableManager
        transport: Transport

    def Table(self, name: str, **options: Any) -> ChunkTable:
        """Define a table; for `options` see chunks.table.Table."""
        table: ChunkTable = super().Table(name, **options)  # type: ignore[assignment]  # conf.Table names the class
        return table

    def chunk_topic(self, name: str) -> TopicT:
        """Define a topic whose agents receive chunks."""
        topic = self.topic(name, schema=ChunkSchema())
        if name in self.tables.background_topics:
            # No bound, as `App.topic` forgets the one it is given: the records of one fetch have to
            # fit, or they would block the other topics. The topic is fetched again only after the
            # agent has taken all of them.
            topic.maxsize = 0
        return topic
