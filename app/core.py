"""The Faust app of a Lately process, with typed attributes, and its topics as Faust objects."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from aiohttp import ClientSession, TCPConnector
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers import TRANSPORTS
from faust.types.auth import CredentialsT
from faust.web.drivers import DRIVERS

from app import tls
from app.freeze_guard import FreezeGuard
from app.setting_values import bracketed
from app.settings import Settings
from app.signing import WorkerAddresses
from app.topics import FOR_EVER, WORKER, Topic, Topics
from chunks import ChangelogFollower, ChunkedApp

if TYPE_CHECKING:
    from app.services.dead_letter_counts import DeadLetterCounts
    from app.services.group_directory import GroupDirectory
    from app.services.list_freshness import ListFreshness
    from app.services.lost_state import LostStateHandler
    from app.services.progress import ReadProgress
    from app.services.source_status import SourceStatus
    from app.services.throttle import Throttle
    from app.services.watchdog import Watchdog


class Lately(ChunkedApp):
    """The app of one process: a worker, or a command of Faust's."""

    settings: Settings
    #: The declarations of all topics; Faust uses the name `topics` itself.
    declared_topics: Topics
    freeze_guard: FreezeGuard
    #: The agents that this process runs, by module name; see app.selection.
    selected_agents: tuple[str, ...]
    #: Agent -> the topic that it reads, of all agents.
    source_topics: dict[str, str]
    #: Table -> its changelog topic, and the agent that writes it; also of tables that this process
    #: does not run.
    changelogs: dict[str, str]
    table_writers: dict[str, str | None]
    #: Topics of agents that are not part of Lately itself; the worker creates them at its start.
    extra_topics: list[Topic]

    # Created by app.main.
    source_status: SourceStatus
    dead_letter_counts: DeadLetterCounts
    group_directory: GroupDirectory
    progress: ReadProgress
    throttle: Throttle
    watchdog: Watchdog
    lost_state_handler: LostStateHandler
    sales_follower: ChangelogFollower
    list_freshness: ListFreshness

    @property
    def consumer_group(self) -> str:
        """The consumer group of this process, see app.selection."""
        return self.tables.group_id or self.conf.id

    @cached_property
    def address(self) -> str:
        """The base URL of this worker; final once the command line is parsed (`--web-port`)."""
        return str(self.conf.canonical_url).rstrip("/")


def create_app(settings: Settings) -> Lately:
    """Build the app; nothing is started."""
    topics = Topics(settings)
    TRANSPORTS.aliases["lately"] = "chunks.transport:Transport"
    DRIVERS.aliases["lately"] = "web.http.server:Web"
    app = Lately(
        settings.group,
        broker=";".join(f"lately://{server}" for server in settings.kafka_servers),
        broker_credentials=_credentials(settings),
        store="memory://",  # chunks.table has stores of its own
        web="lately://",
        datadir=settings.folder,
        autodiscover=False,
        topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication,
        topic_allow_declare=False,  # ensure_topics has created and checked them
        topic_disable_leader=True,
        table_standby_replicas=settings.standby_replicas,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=_instance_id(settings),
        broker_session_timeout=settings.session_timeout_s,
        # After a crash the broker may wait for group members that no longer exist. The whole group
        # is blocked for this long. A member whose transactions take longer to end loses its
        # partitions.
        broker_rebalance_timeout=max(20.0, settings.session_timeout_s),
        # A worker learns of a lost member with its next heartbeat.
        broker_heartbeat_interval=min(1.0, settings.session_timeout_s / 3),
        # aiokafka leaves the group when nothing is fetched for this long. Nothing is fetched while
        # tables are recovered, or on a worker with standbys only. The session timeout detects a
        # worker that hangs, and app/freeze_guard.py one that was frozen.
        broker_max_poll_interval=7 * 86_400.0,
        agent_supervisor="mode.CrashingSupervisor",
        stream_buffer_maxsize=16,  # chunks
        consumer_max_fetch_size=256 * 1024,  # a larger response occupies a thread, and so a request, for too long
        broker_commit_interval=0.5,
        Stream="chunks.stream:Stream",
        Table="chunks.table:Table",
        PartitionAssignor="chunks.assignor:Assignor",
        TableManager="chunks.manager:TableManager",
        Worker="app.worker:Worker",
        HttpClient=_http_client,
        web_host=bracketed(settings.web_host),
        web_bind=settings.web_host.strip("[]"),
        web_port=settings.web_port,
        web_application_options={"client_max_size": 64 * 1024},  # bytes of a body
    )
    app.settings, app.declared_topics = settings, topics
    app.selected_agents, app.source_topics, app.extra_topics = (), {}, []
    app.changelogs, app.table_writers = {}, {}
    app.freeze_guard = FreezeGuard(settings.session_timeout_s)
    app.tables.before_step = app.freeze_guard.check
    app.tables.position_headers = lambda: [(WORKER, app.address.encode())]
    addresses = WorkerAddresses(settings)
    app.tables.sign_address, app.tables.is_trusted_address = addresses.sign, addresses.is_trusted
    app.tables.cache_bytes = settings.cache_mb * 2**20
    app.tables.block_cache_bytes = settings.block_cache_mb * 2**20
    # Totals and co-purchases have lower priority than purchases.
    background = (topics.product_partials, topics.purchase_changes, topics.co_purchases)
    app.tables.background_topics = frozenset(topic.name for topic in background)
    return app


def _credentials(settings: Settings) -> CredentialsT | None:
    """The credentials for Faust's and the engine's clients of Kafka."""
    options = tls.kafka_options(settings)
    context = options.get("ssl_context")
    if "sasl_mechanism" in options:
        return SASLCredentials(
            username=options["sasl_plain_username"], password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"], ssl_context=context,
        )  # fmt: skip
    return SSLCredentials(context) if context else None


def _instance_id(settings: Settings) -> str | None:
    """Return the static member id of this worker in its group; None if it has no name.

    A worker with other agents needs another id.
    """
    if not settings.instance_id:
        return None
    return f"{settings.instance_id}-{settings.by_product:d}{settings.similar:d}"


def _http_client() -> ClientSession:
    # A forwarded stream occupies a connection; with aiohttp's default limit of 100 connections, 100
    # streams would block all other forwarding.
    return ClientSession(connector=TCPConnector(limit=0))


#: The settings and the app of this process.
settings = Settings.from_env()
app = create_app(settings)

orders = app.chunk_topic(app.declared_topics.orders.name)
product_partials = app.chunk_topic(app.declared_topics.product_partials.name)
purchase_changes = app.chunk_topic(app.declared_topics.purchase_changes.name)
co_purchases = app.chunk_topic(app.declared_topics.co_purchases.name)
orders_dead = app.topic(app.declared_topics.orders_dead.name, key_type=bytes, value_type=bytes)


def own_topic(name: str, config: dict[str, str] = FOR_EVER) -> str:
    """Declare a topic that your own agent writes, and return its name: LATELY_ID and `name`.

    The worker creates it at its start.
    """
    topic = Topic(f"{settings.group}-{name}", config)
    app.extra_topics.append(topic)
    return topic.name
