"""Everything that the web views use of the rest of the process.

Each view receives it as a value, so a test can build a web application without Faust and without
Kafka.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from aiohttp import ClientSession

from app.services.dead_letter_counts import DeadLetterCounts
from app.services.source_status import Freshness, SourceStatus
from app.settings import Settings
from app.topics import Topics
from chunks import TableReader
from tables.by_product import ByProductReader
from tables.by_user import ByUserReader
from tables.product_sales import SalesCopy
from tables.similar import SimilarReader
from web.common_buyers import CommonBuyersReader
from web.fallback import Fallback, MySQLReads
from web.purchases_answer import PurchasesAnswerBuilder
from web.recommendations import Recommender
from web.routing import Router
from web.worker import Ownership, WorkerState


@dataclass(frozen=True)
class WebContext:
    """Settings, table readers and services of one worker, and objects derived from them."""

    settings: Settings
    topics: Topics
    ownership: Ownership
    worker: WorkerState
    by_user: ByUserReader
    by_product: ByProductReader
    similar: SimilarReader
    #: The sales of all products, in the memory of this process.
    sales: SalesCopy
    is_sales_complete: Callable[[], bool]
    #: The freshness of lists of products.
    list_freshness: Callable[[], Freshness]
    #: The tables that this process writes, by name.
    tables: Mapping[str, TableReader]
    source_status: SourceStatus
    dead_letter_counts: DeadLetterCounts
    http_client: Callable[[], ClientSession]

    @cached_property
    def router(self) -> Router:
        """The choice of the source of each response."""
        return Router(self.settings, self.ownership, self.http_client)

    @cached_property
    def fallback(self) -> Fallback:
        """The sources for users whose partition no worker answers for."""
        return Fallback(self.settings, self.ownership, MySQLReads.from_settings(self.settings))

    @cached_property
    def purchases(self) -> PurchasesAnswerBuilder:
        """The answers about the purchases of a user."""
        return PurchasesAnswerBuilder(self.settings, self.by_user, self.fallback, self.worker.address)

    @cached_property
    def common_buyers(self) -> CommonBuyersReader:
        """The neighbours of products, from their owners."""
        return CommonBuyersReader(self.settings, self.ownership, self.router, self.similar)

    @cached_property
    def recommender(self) -> Recommender:
        """The lists of products for a product or a user."""
        return Recommender(self.sales, self.common_buyers)

    @cached_property
    def stream_slots(self) -> asyncio.Semaphore:
        """One slot for each stream that may be open at once."""
        return asyncio.Semaphore(self.settings.streams)

    @cached_property
    def trace_slots(self) -> asyncio.Semaphore:
        """One slot for each trace that may run at once: each has a consumer of its own."""
        return asyncio.Semaphore(4)
