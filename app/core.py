"""The one Faust app, built from the settings."""

import faust
from faust.stores import STORES
from faust.transport.drivers import TRANSPORTS
from faust.web.drivers import DRIVERS

from app.config import Settings
from app.topics import MAX_REQUEST_BYTES, Topics

settings = Settings.from_env()

TRANSPORTS.aliases["lately"] = "app.exact:Transport"
STORES.aliases["lately"] = "tables.store:Store"
DRIVERS.aliases["lately"] = "web.server:Web"

app = faust.App(
    settings.id,
    broker=";".join(f"lately://{server}" for server in settings.kafka_servers),
    store="lately://",
    web="lately://",
    datadir=settings.data_dir,
    autodiscover=False,
    topic_partitions=settings.partitions,
    topic_replication_factor=settings.replication,
    topic_allow_declare=False,  # ensure_topics has created and checked them
    topic_disable_leader=True,
    table_standby_replicas=0,
    consumer_auto_offset_reset="earliest",
    broker_session_timeout=settings.session_timeout_s,
    broker_heartbeat_interval=settings.session_timeout_s / 3,
    broker_max_poll_interval=120.0,
    producer_request_timeout=120.0,
    producer_max_request_size=MAX_REQUEST_BYTES,
    agent_supervisor="mode.CrashingSupervisor",
    TableManager="app.exact:TableManager",
    Worker="app.start:Worker",
    web_host=settings.web_host,
    web_bind=settings.web_host,
    web_port=settings.web_port,
)
app.settings = settings

_topics = Topics(settings)


def _raw(topic) -> faust.types.TopicT:
    return app.topic(topic.name, key_type=bytes, value_type=bytes, value_serializer="raw")


orders = _raw(_topics.orders)
orders_by_product = _raw(_topics.orders_by_product)
orders_dead = _raw(_topics.orders_dead)
