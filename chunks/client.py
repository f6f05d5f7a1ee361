"""Connection options that the engine's own Kafka clients share with Faust's."""

from __future__ import annotations

from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list

from chunks.app import ChunkedApp


def client_options(app: ChunkedApp) -> dict[str, object]:
    """Return the options of every aiokafka client: bootstrap servers and security."""
    security = credentials_to_aiokafka_auth(app.conf.broker_credentials, app.conf.ssl_context)
    return {"bootstrap_servers": server_list(app.transport.url, app.transport.default_port), **security}
