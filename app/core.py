"""The one Faust app, built from the settings."""

from functools import cache

import faust
from aiohttp import ClientSession, TCPConnector
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers import TRANSPORTS
from faust.types.auth import CredentialsT
from faust.web.drivers import DRIVERS

from app import tls
from app.freeze_guard import pulse
from app.settings import Settings
from app.topics import FOR_EVER, WORKER, Topic, Topics
from chunks import ChunkSchema

settings = Settings.from_env()


@cache
def address() -> str:
    """The address of this worker, once the command line has said its last word about it (`--web-port`)."""
    return str(app.conf.canonical_url).rstrip("/")


def _credentials() -> CredentialsT | None:
    """What secures all clients of Kafka, as Faust and the engine are told it."""
    told = tls.kafka(settings)
    context = told.get("ssl_context")
    if "sasl_mechanism" in told:
        return SASLCredentials(
            username=told["sasl_plain_username"], password=told["sasl_plain_password"],
            mechanism=told["sasl_mechanism"], ssl_context=context,
        )  # fmt: skip
    return context and SSLCredentials(context)


def _instance() -> str | None:
    """This worker's own name in the group, where it has one."""
    return f"{settings.instance_id}-{settings.by_product}{settings.similar}" if settings.instance_id else None


def _http_client() -> ClientSession:
    # A stream that is handed on keeps a connection: with aiohttp's bound of 100 nothing else would be forwarded then.
    return ClientSession(connector=TCPConnector(limit=0))


TRANSPORTS.aliases["lately"] = "chunks.transport:Transport"
DRIVERS.aliases["lately"] = "web.http.server:Web"

app = faust.App(
    settings.group,
    broker=";".join(f"lately://{server}" for server in settings.kafka_servers),
    broker_credentials=_credentials(),
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
    # Who comes back is given what it had: with other agents it is another member.
    consumer_group_instance_id=_instance(),
    broker_session_timeout=settings.session_timeout_s,
    # A broker that was killed may, back again, know the members of before, and wait for them although they have become
    # others: so long all of them stand still. Who needs longer to let its transactions end is taken over from.
    broker_rebalance_timeout=max(20.0, settings.session_timeout_s),
    # By its next heartbeat a worker hears that another one is gone.
    broker_heartbeat_interval=min(1.0, settings.session_timeout_s / 3),
    # aiokafka leaves the group when nobody fetches for so long, and here nobody does while tables are restored, or on a
    # worker that only has standbys. A worker that hangs is noticed by its session, a frozen one by app/freeze_guard.py.
    broker_max_poll_interval=7 * 86_400.0,
    agent_supervisor="mode.CrashingSupervisor",
    stream_buffer_maxsize=16,  # chunks
    consumer_max_fetch_size=256 * 1024,  # larger answers keep a thread, and so a request, busy for too long
    broker_commit_interval=0.5,
    Stream="chunks.stream:Stream",
    Table="chunks.table:Table",
    PartitionAssignor="chunks.assignor:Assignor",
    TableManager="chunks.manager:TableManager",
    Worker="app.worker:Worker",
    HttpClient=_http_client,
    web_host=settings.web_host,
    web_bind=settings.web_host,
    web_port=settings.web_port,
    web_application_options={"client_max_size": 64 * 1024},  # bytes of a body
)
app.settings = settings
#: The agents that this process runs, and of all there are the topics that they read; see app.selection.
app.runs: tuple[str, ...] = ()
app.readers: dict[str, str] = {}
#: Topics of agents that are no part of Lately itself, to be made at the start.
app.own_topics: list[Topic] = []
app.tables.check = pulse.check
app.tables.stamp = lambda: [(WORKER, address().encode())]
app.tables.cache_bytes = settings.cache_mb * 2**20
app.tables.block_cache_bytes = settings.block_cache_mb * 2**20

_topics = Topics(settings)


# Sums and what goes with what may be counted later than what was bought.
app.tables.background = frozenset(
    {_topics.product_partials.name, _topics.purchase_changes.name, _topics.co_purchases.name}
)


def _chunked(topic) -> faust.types.TopicT:
    made = app.topic(topic.name, schema=ChunkSchema())
    if topic.name in app.tables.background:
        # No bound, as `app.topic` forgets the one it is given: what one fetch brings has to fit, or it would hold up
        # the others. Nothing more is fetched until the agent has taken all of that.
        made.maxsize = 0
    return made


orders = _chunked(_topics.orders)
product_partials = _chunked(_topics.product_partials)
purchase_changes = _chunked(_topics.purchase_changes)
co_purchases = _chunked(_topics.co_purchases)
orders_dead = app.topic(_topics.orders_dead.name, key_type=bytes, value_type=bytes)


def own_topic(name: str, config: dict[str, str] = FOR_EVER) -> str:
    """The full name of a topic that an agent of your own writes: LATELY_ID and `name`. It is made at the start."""
    topic = Topic(f"{settings.group}-{name}", config)
    app.own_topics.append(topic)
    return topic.name
