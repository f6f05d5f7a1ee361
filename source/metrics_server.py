"""HTTP server of the running source: /metrics for Prometheus, /readyz with its problems."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import msgspec
from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

#: The environment and `start_response` of WSGI.
_Environ = dict[str, Any]
_StartResponse = Callable[..., Any]


def serve_metrics(host: str, port: int, readiness: Callable[[], dict[str, object]]) -> None:
    """Serve in a daemon thread until the process ends.

    `/readyz` responds 200 with what `readiness` returns, every other path with the metrics. Raises
    OSError when the port is not free.
    """
    metrics_app = make_wsgi_app()

    def respond(environ: _Environ, start_response: _StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/readyz":
            metrics: Iterable[bytes] = metrics_app(environ, start_response)
            return metrics
        body = msgspec.json.encode(readiness())
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("200 OK", headers)
        return [body]

    class Server(ThreadingWSGIServer):
        """A server of the address family of `host`."""

    if ":" in host:
        import socket

        Server.address_family = socket.AF_INET6
    server = make_server(host, port, respond, Server, handler_class=_SilentHandler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log no requests."""
