"""The reaction to a lost part of a table: count it, report it, and request the missing rows.

by_user is rebuilt from `orders`, the totals from by_user. Rows that `orders` does not contain any
more are in the shop's database: a running source fulfils the snapshot request, and until then
`meta.complete` is false.
"""

from __future__ import annotations

import logging
import time

from app import metrics
from app.control import source_state, state_topic
from app.kafka.produce import durable_producer
from app.settings import Settings
from app.topics import Topics
from chunks import Loss

log = logging.getLogger(__name__)

#: The tables that a snapshot of the shop's database restores, directly or through the events that
#: follow from it.
RESTORED_BY_SNAPSHOT = ("by_user", "product_partials")


class LostStateHandler:
    """Handles the loss of partitions of tables; TableManager.on_loss calls it before a rebuild."""

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self._settings, self._topics = settings, topics

    async def handle_loss(self, loss: Loss) -> bool:
        """Count and report a loss, and request a snapshot.

        Return whether all of the content will be restored.
        """
        metrics.REBUILDS.labels(loss.table, loss.reason).inc()
        if not loss.is_permanent:
            return True
        if loss.table not in RESTORED_BY_SNAPSHOT:
            log.error(
                "%s[%s] stays incomplete: its topic does not contain its first records any more; set LATELY_ID to a "
                "new name to count everything again from orders",
                loss.table, loss.partition,
            )  # fmt: skip
            return False
        log.error(
            "%s[%s]: orders does not contain its first records any more; a running `lately source` publishes all "
            "rows again, or run `lately source snapshot --all`. `lately verify --repair` removes the purchases that "
            "were removed meanwhile. Similar products count the republished purchases twice: set LATELY_ID to a new "
            "name to count them again",
            loss.table, loss.partition,
        )  # fmt: skip
        if loss.table == "by_user":
            await self._request_snapshot(loss)
        return True

    async def _request_snapshot(self, loss: Loss) -> None:
        request = source_state.SnapshotRequest(requested_at=time.time_ns() // 1000, reason=str(loss))
        async with durable_producer(self._settings) as producer:
            await state_topic.write(producer, self._settings, request)
