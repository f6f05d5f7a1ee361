"""The exporter of spans that OpenTelemetry's own variables select."""

from __future__ import annotations

import os
from collections.abc import Mapping


def otel_exporter(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the entry point of the exporter that the OTEL_* variables name; None: no spans."""
    environ = os.environ if environ is None else environ
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    name = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not name:
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        name = "otlp" if any(environ.get(variable) for variable in endpoints) else "none"
    if name == "otlp":
        protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        return "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    return None if name == "none" else name
