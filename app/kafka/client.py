"""Options of every Kafka client, and errors that name their cause and the next step."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import errors
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.protocol.metadata import MetadataRequest

from app import tls
from app.errors import KafkaAway, Refused
from app.settings import Settings
from domain.errors import LatelyError

#: Timeout of the connection that diagnoses a server, ms.
DIAGNOSIS_TIMEOUT_MS = 5_000
#: Minimum interval between two log lines about a refused connection, s.
LOG_INTERVAL_S = 10.0

_REFUSALS = (errors.SaslAuthenticationFailed, errors.AuthenticationFailedError)
_FORBIDDEN = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
)


def client_options(settings: Settings) -> dict[str, object]:
    """Return the options of every aiokafka client: bootstrap servers and security settings."""
    return {"bootstrap_servers": settings.kafka_servers, **tls.kafka_options(settings)}


@asynccontextmanager
async def explain_errors(settings: Settings) -> AsyncIterator[None]:
    """Replace connection errors of Kafka by an error that names the cause.

    Raises ServerAway, Refused.
    """
    try:
        yield
    except (errors.KafkaError, asyncio.TimeoutError, OSError) as exc:
        raise await diagnose(settings, exc) or KafkaAway(
            f"no answer from Kafka at {settings.kafka} ({str(exc) or type(exc).__name__}): "
            "start it, or set LATELY_KAFKA to the servers to use"
        ) from None


async def diagnose(settings: Settings, exc: Exception | None = None) -> LatelyError | None:
    """Find the cause of `exc`, which aiokafka only logs: connect to each server once more.

    Returns Refused if a retry cannot help, ServerAway if it can, and None if a server accepts the
    connection or no server answers. If one server accepts the connection, the others are only away.
    """
    if isinstance(exc, _FORBIDDEN):
        return Refused(
            f"Kafka at {settings.kafka} does not allow {_client_name(settings)} an operation that Lately needs "
            f"({exc}): grant it with kafka-acls.sh"
        )
    servers = collect_hosts(settings.kafka_servers, randomize=False)
    outcomes = await asyncio.gather(*[_probe(settings, host, port) for host, port, _ in servers])
    if any(outcome is True for outcome in outcomes):
        return None
    causes = [outcome for outcome in outcomes if isinstance(outcome, LatelyError)]
    refusals = [cause for cause in causes if isinstance(cause, Refused)]
    return next(iter(refusals or causes), None)


async def _probe(settings: Settings, host: str, port: int) -> LatelyError | bool:
    """Connect to one server, and return the cause of an error.

    True: the server accepts the connection. False: it does not answer.
    """
    server = f"Kafka at {host}:{port}"
    try:
        connection = await create_conn(
            host, port, request_timeout_ms=DIAGNOSIS_TIMEOUT_MS, **tls.kafka_options(settings)
        )
        try:
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except _REFUSALS as exc:
        return Refused(
            f"{server} refuses {_client_name(settings)} ({exc}): set LATELY_KAFKA_SASL_USER, "
            "LATELY_KAFKA_SASL_PASSWORD and LATELY_KAFKA_SASL_MECHANISM to credentials that the broker accepts, "
            "and start again"
        )
    except errors.IllegalSaslStateError:
        return Refused(f"{server} expects no SASL: set LATELY_KAFKA_SECURITY to the protocol of the listener")
    except errors.UnsupportedSaslMechanismError:
        return Refused(
            f"{server} does not support {settings.kafka_sasl_mechanism}: set LATELY_KAFKA_SASL_MECHANISM to one of "
            "its sasl.enabled.mechanisms"
        )
    except ssl.SSLCertVerificationError as exc:
        return Refused(
            f"the certificate of {server} is not trusted ({exc.verify_message}): set LATELY_KAFKA_CA to the authority "
            "that signed it, and LATELY_KAFKA to a name that it contains"
        )
    except (errors.KafkaError, ssl.SSLError, ConnectionResetError, BrokenPipeError) as exc:
        return _closed_connection_error(settings, server, exc)
    except (OSError, asyncio.TimeoutError):
        return False
    return True


def _closed_connection_error(settings: Settings, server: str, exc: Exception) -> LatelyError:
    """Explain a closed connection: often a wrong protocol or a missing client certificate."""
    reason = getattr(exc.__cause__ or exc, "reason", None) or ""
    if "CERTIFICATE" in reason:
        return Refused(
            f"{server} does not accept the certificate of this client ({reason}): set LATELY_KAFKA_CERT and "
            "LATELY_KAFKA_KEY to a certificate that it trusts and its key"
        )
    return KafkaAway(
        f"{server} closed the connection ({str(exc) or type(exc).__name__}): it is starting or stopping, "
        f"or it does not expect LATELY_KAFKA_SECURITY={settings.kafka_security}: set it to the protocol of the listener"
    )


def _client_name(settings: Settings) -> str:
    return f"the user {settings.kafka_sasl_user!r}" if settings.kafka_sasl_user else "this client"


class _HideSecrets(logging.Filter):
    """Drops aiokafka's debug log of SASL requests, because they contain the password."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(type(arg).__name__.startswith("SaslAuthenticate") for arg in _args(record))


class _LimitRefusals(logging.Filter):
    """Limits repeated errors of a client that Kafka refuses, and appends the next step."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at = -LOG_INTERVAL_S

    def filter(self, record: logging.LogRecord) -> bool:
        # The first errors of a start end the process with a message of their own.
        is_refusal = any(isinstance(arg, (*_REFUSALS, ssl.SSLCertVerificationError)) for arg in _args(record))
        if not is_refusal or not str(record.msg).startswith("Unable connect to node"):
            return True
        if time.monotonic() - self._logged_at < LOG_INTERVAL_S:
            return False
        self._logged_at = time.monotonic()
        advice = "set LATELY_KAFKA_SASL_PASSWORD or LATELY_KAFKA_CA to the current value, and start again"
        record.msg = f"{record.msg}: {advice}"
        return True


def _args(record: logging.LogRecord) -> tuple[object, ...]:
    return record.args if isinstance(record.args, tuple) else ()


logging.getLogger("aiokafka.conn").addFilter(_HideSecrets())
logging.getLogger("aiokafka").addFilter(_LimitRefusals())
