"""OpenTelemetry is there when it is asked for and installed; otherwise it costs nothing and breaks
nothing.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.otel_settings import otel_exporter
from domain.events import is_valid_trace_id, is_valid_traceparent, trace_id_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "exporter"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "shop"}, None),
        ({ENDPOINT: "http://127.0.0.1:4318"}, "otlp_proto_http"),
        ({ENDPOINT: "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "otlp_proto_grpc"),
        ({ENDPOINT: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}, None),
        ({ENDPOINT: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp_proto_http"),
    ],
)
def test_the_standard_variables_say_whether_and_how(environ, exporter):
    assert otel_exporter(environ) == exporter


def run(code: str, **environ: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)


NOT_IMPORTED = """
import sys
from app import otel
assert not [name for name in sys.modules if name.startswith("opentelemetry")], "imported"
answer = object()
assert otel.traced(answer) is answer
assert otel.processing("orders", 0, "lately", [1]) is otel.publishing("orders", [1])
"""


@pytest.mark.parametrize("environ", [{}, {ENDPOINT: "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}])
def test_without_configuration_nothing_is_imported_and_nothing_is_done(environ):
    done = run(NOT_IMPORTED, **environ)
    assert done.returncode == 0, done.stderr


WITHOUT_SDK = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


def test_without_the_sdk_a_configured_exporter_is_a_warning_and_no_error():
    done = run(WITHOUT_SDK + NOT_IMPORTED, **{ENDPOINT: "http://127.0.0.1:1"})
    assert done.returncode == 0, done.stderr
    assert "lately[otel]" in done.stderr


def test_an_exporter_that_is_not_installed_is_a_warning_and_no_error():
    done = run("import app.otel", OTEL_TRACES_EXPORTER="zipkin-of-nobody")
    assert done.returncode == 0, done.stderr
    assert "zipkin-of-nobody" in done.stderr


@pytest.mark.parametrize(("text", "valid"), [(TRACE, True), (None, False), ("", False), (TRACE + "-00", False)])
def test_a_traceparent_is_that_of_the_w3c(text, valid):
    assert is_valid_traceparent(text) is valid
    assert trace_id_of(text) == (TRACE.split("-")[1] if valid else None)


@pytest.mark.parametrize(
    ("text", "valid"),
    [("af" * 16, True), ("0" * 32, False), ("AF" * 16, False), ("af" * 15, False), ("", False)],
)
def test_the_id_of_a_trace_is_that_of_the_w3c(text, valid):
    assert is_valid_trace_id(text) is valid
