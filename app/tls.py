"""What secures the ways to Kafka and MySQL: made from the settings here, and nowhere else."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import BadSetting

if TYPE_CHECKING:
    from app.settings import Settings

#: What Kafka calls its protocols, and how a user proves who it is.
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
#: What MySQL's own clients call it (--ssl-mode).
MODES = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")


def check(settings: Settings) -> None:
    """Raise BadSetting for what does not go together, or a file that is not what it should be."""
    _check_kafka(settings)
    _check_mysql(settings)
    kafka(settings)
    mysql(settings)


def kafka(settings: Settings) -> dict[str, object]:
    """What an aiokafka client is told of security. Raises BadSetting."""
    protocol = settings.kafka_security
    told: dict[str, object] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        told["ssl_context"] = _context("KAFKA", settings.kafka_ca, settings.kafka_cert, settings.kafka_key)
    if protocol.startswith("SASL"):
        told |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism, "sasl_plain_username": settings.kafka_sasl_user,
            "sasl_plain_password": settings.kafka_sasl_password,
        }  # fmt: skip
    return told


def mysql(settings: Settings) -> ssl.SSLContext | None:
    """The TLS without which no connection to MySQL is made; None where it may go without. Raises BadSetting."""
    mode = settings.mysql_tls
    if mode in ("DISABLED", "PREFERRED"):
        return None
    trusts, named = mode.startswith("VERIFY"), mode == "VERIFY_IDENTITY"
    return _context("MYSQL", settings.mysql_ca, settings.mysql_cert, settings.mysql_key, trusts, named)


def _check_kafka(settings: Settings) -> None:
    protocol = settings.kafka_security
    said = f"LATELY_KAFKA_SECURITY={protocol}"
    for name in ("kafka_ca", "kafka_cert", "kafka_key"):
        if getattr(settings, name) and not protocol.endswith("SSL"):
            raise BadSetting(f"LATELY_{name.upper()} is for TLS, and {said} is without: set it to SSL or SASL_SSL")
    for name in ("kafka_sasl_mechanism", "kafka_sasl_user", "kafka_sasl_password"):
        given = bool(getattr(settings, name))
        if given and not protocol.startswith("SASL"):
            raise BadSetting(
                f"LATELY_{name.upper()} is for SASL, and {said} is without: set it to SASL_SSL or SASL_PLAINTEXT"
            )
        if not given and protocol.startswith("SASL"):
            raise BadSetting(f"LATELY_{name.upper()} is not set, and {said} needs it: set it, too")


def _check_mysql(settings: Settings) -> None:
    said = f"LATELY_MYSQL_TLS={settings.mysql_tls}"
    if settings.mysql_ca and not settings.mysql_tls.startswith("VERIFY"):
        raise BadSetting(
            f"LATELY_MYSQL_CA is set, and {said} verifies no certificate: set it to VERIFY_IDENTITY or VERIFY_CA"
        )
    for name in ("mysql_cert", "mysql_key"):
        if getattr(settings, name) and settings.mysql_tls in ("DISABLED", "PREFERRED"):
            raise BadSetting(
                f"LATELY_{name.upper()} is for TLS, and {said} can be without: set it to VERIFY_IDENTITY or REQUIRED"
            )


@lru_cache
def _context(where: str, ca: str, cert: str, key: str, trusts: bool = True, named: bool = True) -> ssl.SSLContext:
    """A client's context; `ca` alone is trusted, the system's authorities where it is empty."""
    prefix = f"LATELY_{where}"
    for name, path in (("CA", ca), ("CERT", cert), ("KEY", key)):
        if path:
            _demand_readable(f"{prefix}_{name}", path)
    if bool(cert) != bool(key):
        given, missing = ("CERT", "KEY") if cert else ("KEY", "CERT")
        raise BadSetting(f"{prefix}_{given} is set without {prefix}_{missing}: set both, or neither")
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ValueError):
        raise BadSetting(f"{prefix}_CA: {ca!r} has no certificate: it must be a PEM file of authorities") from None
    if cert:
        _show(context, prefix, cert, key)
    context.check_hostname = named
    context.verify_mode = ssl.CERT_REQUIRED if trusts else ssl.CERT_NONE
    return context


def _show(context: ssl.SSLContext, prefix: str, cert: str, key: str) -> None:
    def locked() -> str:
        # Without it OpenSSL would ask the terminal for the password.
        raise BadSetting(
            f"{prefix}_KEY: {key!r} has a password: decrypt it with `openssl pkey`, and let only Lately read the file"
        )

    try:
        context.load_cert_chain(cert, key, password=locked)
    except (OSError, ValueError) as exc:
        if getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH":
            raise BadSetting(f"{prefix}_KEY: {key!r} is not the key of {cert!r}: give those made together") from None
        raise BadSetting(
            f"{prefix}_CERT and {prefix}_KEY: {cert!r} and {key!r} must be a certificate and its private key, both PEM"
        ) from None


def _demand_readable(name: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            return
    except (OSError, ValueError) as exc:
        cause = getattr(exc, "strerror", None) or exc
        raise BadSetting(f"{name}: {path!r} cannot be read ({cause}): it must be a PEM file") from None
