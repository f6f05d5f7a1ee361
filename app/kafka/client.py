"""Kafka as every client of ours reaches it: where it is, how the way there is secured, and why it was not reached."""

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
from app.errors import Refused, ServerAway
from app.settings import Settings
from domain.errors import LatelyError

#: How long a server may need to say what is wrong, ms.
PATIENCE_MS = 5_000
#: How often the log says that Kafka lets us in no more, s.
SAY_AGAIN_S = 10.0

_REFUSALS = (errors.SaslAuthenticationFailed, errors.AuthenticationFailedError)
_FORBIDDEN = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
)


def client(settings: Settings) -> dict[str, object]:
    """What every aiokafka client is told: the bootstrap servers, and all about security."""
    return {"bootstrap_servers": settings.kafka_servers, **tls.kafka(settings)}


@asynccontextmanager
async def reachable(settings: Settings) -> AsyncIterator[None]:
    """Say it in words when Kafka does not answer, or refuses. Raises ServerAway, Refused."""
    try:
        yield
    except (errors.KafkaError, asyncio.TimeoutError, OSError) as exc:
        raise await obstacle(settings, exc) or ServerAway(
            f"no answer from Kafka at {settings.kafka} ({str(exc) or type(exc).__name__}): "
            "start it, or set LATELY_KAFKA to the servers to use"
        ) from None


async def obstacle(settings: Settings, exc: Exception | None = None) -> LatelyError | None:
    """What lies behind `exc`: Refused where waiting does not help, else ServerAway; None where there is no more to say.

    aiokafka only logs why it could not connect, so each server is asked once more. Where one lets us in, the others
    are only away.
    """
    if isinstance(exc, _FORBIDDEN):
        return Refused(
            f"Kafka at {settings.kafka} does not allow {_who(settings)} what Lately does ({exc}): "
            "give it the rights with kafka-acls.sh"
        )
    asked = [_ask(settings, host, port) for host, port, _ in collect_hosts(settings.kafka_servers, randomize=False)]
    said = await asyncio.gather(*asked)
    if any(one is True for one in said):
        return None
    found = [one for one in said if isinstance(one, LatelyError)]
    refusals = [one for one in found if isinstance(one, Refused)]
    return next(iter(refusals or found), None)


async def _ask(settings: Settings, host: str, port: int) -> LatelyError | bool:
    """What a server has against us; True when it lets us in, False when it is not there."""
    at = f"Kafka at {host}:{port}"
    try:
        connection = await create_conn(host, port, request_timeout_ms=PATIENCE_MS, **tls.kafka(settings))
        try:
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except _REFUSALS as exc:
        return Refused(
            f"{at} refuses {_who(settings)} ({exc}): set LATELY_KAFKA_SASL_USER, LATELY_KAFKA_SASL_PASSWORD and "
            "LATELY_KAFKA_SASL_MECHANISM as the broker knows them, and start again"
        )
    except errors.IllegalSaslStateError:
        return Refused(f"{at} expects no SASL: set LATELY_KAFKA_SECURITY to the protocol of its listener")
    except errors.UnsupportedSaslMechanismError:
        return Refused(
            f"{at} does not speak {settings.kafka_sasl_mechanism}: set LATELY_KAFKA_SASL_MECHANISM to what its "
            "sasl.enabled.mechanisms has"
        )
    except ssl.SSLCertVerificationError as exc:
        return Refused(
            f"the certificate of {at} is not trusted ({exc.verify_message}): set LATELY_KAFKA_CA to the authority that "
            "signed it, and LATELY_KAFKA to a name that it has"
        )
    except (errors.KafkaError, ssl.SSLError, ConnectionResetError, BrokenPipeError) as exc:
        return _broken(settings, at, exc)
    except (OSError, asyncio.TimeoutError):
        return False
    return True


def _broken(settings: Settings, at: str, exc: Exception) -> LatelyError:
    """It was there and hung up: mostly because it expects another protocol, or a certificate of ours."""
    reason = getattr(exc.__cause__ or exc, "reason", None) or ""
    if "CERTIFICATE" in reason:
        return Refused(
            f"{at} does not accept the certificate of this client ({reason}): set LATELY_KAFKA_CERT and "
            "LATELY_KAFKA_KEY to one that it trusts"
        )
    return ServerAway(
        f"{at} hung up ({str(exc) or type(exc).__name__}): it is starting or stopping, or it does not expect "
        f"LATELY_KAFKA_SECURITY={settings.kafka_security}: set that to the protocol of its listener"
    )


def _who(settings: Settings) -> str:
    return f"the user {settings.kafka_sasl_user!r}" if settings.kafka_sasl_user else "this client"


class _NoSecrets(logging.Filter):
    """Replaces: aiokafka's debug log of what it sends, which with SASL is the password itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(type(one).__name__.startswith("SaslAuthenticate") for one in _args(record))


class _Refusals(logging.Filter):
    """Replaces: one error again and again while Kafka lets a running client in no more, and no word of what to do."""

    def __init__(self) -> None:
        super().__init__()
        self._said = -SAY_AGAIN_S

    def filter(self, record: logging.LogRecord) -> bool:
        # The first errors of a start end it, with words of their own.
        lasting = any(isinstance(one, (*_REFUSALS, ssl.SSLCertVerificationError)) for one in _args(record))
        if not lasting or not str(record.msg).startswith("Unable connect to node"):
            return True
        if time.monotonic() - self._said < SAY_AGAIN_S:
            return False
        self._said = time.monotonic()
        advice = "set LATELY_KAFKA_SASL_PASSWORD or LATELY_KAFKA_CA to what is right now, and start again"
        record.msg = f"{record.msg}: {advice}"
        return True


def _args(record: logging.LogRecord) -> tuple:
    return record.args if isinstance(record.args, tuple) else ()


logging.getLogger("aiokafka.conn").addFilter(_NoSecrets())
logging.getLogger("aiokafka").addFilter(_Refusals())
