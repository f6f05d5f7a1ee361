"""What the engine's own clients of Kafka share with those of Faust."""

from __future__ import annotations

from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list
from faust.types import AppT


def client_options(app: AppT) -> dict[str, object]:
    """What every aiokafka client is told: the bootstrap servers, and all about security."""
    secured = credentials_to_aiokafka_auth(app.conf.broker_credentials, app.conf.ssl_context)
    return {"bootstrap_servers": server_list(app.transport.url, app.transport.default_port), **secured}
