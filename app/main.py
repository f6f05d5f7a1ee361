"""The composition root: the agents, the tables, the routes, and every service, started by name."""

from __future__ import annotations

import mode.loop

# Their order is that of the names in a consumer group, see app.kafka.groups.
from agents import by_user, by_product, baskets, similar  # isort: skip
from app import metrics
from app.core import Lately, app
from app.ownership import PartitionOwnership
from app.selection import missing_agents, select_agents
from app.services.dead_letter_counts import DeadLetterCounts
from app.services.group_directory import GroupDirectory
from app.services.list_freshness import ListFreshness
from app.services.lost_state import LostStateHandler
from app.services.progress import ReadProgress
from app.services.source_status import SourceStatus
from app.services.throttle import Throttle
from app.services.watchdog import Watchdog
from app.worker_state import FaustWorkerState
from chunks import ChangelogFollower
from tables import by_product as by_product_table
from tables import by_user as by_user_table
from tables import similar as similar_table
from tables.by_product import ByProductReader
from tables.by_user import ByUserReader
from tables.product_sales import SalesCopy
from tables.similar import SimilarReader
from web.application import VIEWS
from web.context import WebContext
from web.http.dispatch import mount
from web.http.server import Web

__all__ = ["app"]

#: The modules of the agents, in the order of the flow of an order; their imports define the agents
#: and their tables.
AGENTS = (by_user, by_product, baskets, similar)


def create_services(app: Lately, sales: SalesCopy) -> None:
    """Create every service of a worker, and register it to be started with the app.

    `sales` receives the sales of all products.
    """
    settings, topics = app.settings, app.declared_topics
    app.throttle = Throttle(app, topics.orders.name)
    app.source_status = SourceStatus(settings, topics)
    app.dead_letter_counts = DeadLetterCounts(settings, topics)
    app.group_directory = GroupDirectory(
        settings, app.consumer_group, missing_agents(app), app.source_topics, app.changelogs, app.table_writers
    )
    app.progress = ReadProgress(app)
    app.watchdog = Watchdog(app, settings, topics, app.source_status, app.throttle)
    app.lost_state_handler = LostStateHandler(settings, topics)
    app.sales_follower = ChangelogFollower(
        app,
        topics.changelog("product_sales"),
        topics.co_purchases.name,
        settings.partitions,
        sales,
    )
    app.list_freshness = ListFreshness(
        settings, topics, app.source_status, app.sales_follower.offsets, topics.changelog("product_sales")
    )

    app.tables.on_loss = app.lost_state_handler.handle_loss
    app.on_partitions_assigned.connect(_count_rebalance)
    # Faust starts the services of `app.service` after the recovery of the tables. The watchdog also
    # observes the recovery, and requests for data of other processes do not wait for it, so these
    # are dependencies, which start with the app.
    app.add_dependency(app.watchdog)
    app.add_dependency(app.group_directory)
    if settings.similar:
        app.add_dependency(app.sales_follower)
    for service in (app.source_status, app.dead_letter_counts, app.progress, app.list_freshness):
        app.service(service)  # type: ignore[arg-type]  # Faust starts an instance as it is


def mount_views(app: Lately, sales: SalesCopy) -> None:
    """Serve the web views."""
    web = app.web
    if not isinstance(web, Web):
        raise TypeError(f"the web driver is {type(web)}, not web.http.server.Web")
    mount(web.web_app, create_web_context(app, sales), VIEWS)


def create_web_context(app: Lately, sales: SalesCopy) -> WebContext:
    """Return what the web views use of a worker; its services must exist."""
    return WebContext(
        settings=app.settings,
        topics=app.declared_topics,
        ownership=PartitionOwnership(app),
        worker=FaustWorkerState(app),
        by_user=ByUserReader(by_user_table.by_user, app.source_status),
        by_product=ByProductReader(by_product_table.by_product),
        similar=SimilarReader(similar_table.similar),
        sales=sales,
        is_sales_complete=lambda: app.sales_follower.is_complete,
        list_freshness=app.list_freshness.freshness,
        tables=app.tables.by_name,
        source_status=app.source_status,
        dead_letter_counts=app.dead_letter_counts,
        http_client=lambda: app.http_client,
    )


async def _count_rebalance(*_: object, **__: object) -> None:
    metrics.REBALANCES.inc()


select_agents(app)
_sales = SalesCopy(app.settings.partitions)
create_services(app, _sales)
mount_views(app, _sales)

# With uvloop a worker answers a tenth more requests per second than with asyncio's own loop
# (bench/results.md).
mode.loop.use("uvloop")
