"""TLS and SASL of the connections to Kafka and MySQL, made from the settings."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import TypedDict, get_args

from app.errors import BadSetting
from app.setting_values import KafkaSecurity, MysqlTls, SaslMechanism, SettingValues

#: Kafka's security protocols and SASL mechanisms.
PROTOCOLS: tuple[str, ...] = get_args(KafkaSecurity)
MECHANISMS: tuple[str, ...] = get_args(SaslMechanism)[1:]
#: The modes of MySQL's own clients (--ssl-mode).
MODES: tuple[str, ...] = get_args(MysqlTls)


class KafkaOptions(TypedDict, total=False):
    """The options of an aiokafka client for its security."""

    security_protocol: str
    ssl_context: ssl.SSLContext
    sasl_mechanism: str
    sasl_plain_username: str
    sasl_plain_password: str


def check_settings(settings: SettingValues) -> None:
    """Raise BadSetting for settings that exclude each other, and for files that cannot be used."""
    _check_kafka(settings)
    _check_mysql(settings)
    kafka_options(settings)
    mysql_context(settings)


def kafka_options(settings: SettingValues) -> KafkaOptions:
    """Return the options of an aiokafka client for its security. Raises BadSetting."""
    protocol = settings.kafka_security
    options = KafkaOptions(security_protocol=protocol)
    if protocol.endswith("SSL"):
        options["ssl_context"] = _context("KAFKA", settings.kafka_ca, settings.kafka_cert, settings.kafka_key)
    if protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_user
        options["sasl_plain_password"] = settings.kafka_sasl_password
    return options


def mysql_context(settings: SettingValues) -> ssl.SSLContext | None:
    """Return the TLS context of connections to MySQL; None for connections without TLS.

    The context is made once for equal settings. Raises BadSetting.
    """
    mode = settings.mysql_tls
    if mode == "DISABLED":
        return None
    is_verified, is_name_checked = mode.startswith("VERIFY"), mode == "VERIFY_IDENTITY"
    return _context("MYSQL", settings.mysql_ca, settings.mysql_cert, settings.mysql_key, is_verified, is_name_checked)


def _check_kafka(settings: SettingValues) -> None:
    protocol = settings.kafka_security
    variable = f"LATELY_KAFKA_SECURITY={protocol}"
    for name in ("kafka_ca", "kafka_cert", "kafka_key"):
        if getattr(settings, name) and not protocol.endswith("SSL"):
            raise BadSetting(f"LATELY_{name.upper()} is for TLS, and {variable} is without: set it to SSL or SASL_SSL")
    for name in ("kafka_sasl_mechanism", "kafka_sasl_user", "kafka_sasl_password"):
        is_set = bool(getattr(settings, name))
        if is_set and not protocol.startswith("SASL"):
            raise BadSetting(
                f"LATELY_{name.upper()} is for SASL, and {variable} is without: set it to SASL_SSL or SASL_PLAINTEXT"
            )
        if not is_set and protocol.startswith("SASL"):
            raise BadSetting(f"LATELY_{name.upper()} is not set, and {variable} needs it: set it, too")


def _check_mysql(settings: SettingValues) -> None:
    variable = f"LATELY_MYSQL_TLS={settings.mysql_tls}"
    if settings.mysql_ca and not settings.mysql_tls.startswith("VERIFY"):
        raise BadSetting(
            f"LATELY_MYSQL_CA is set, and {variable} verifies no certificate: set it to VERIFY_IDENTITY or VERIFY_CA"
        )
    for name in ("mysql_cert", "mysql_key"):
        if getattr(settings, name) and settings.mysql_tls in ("DISABLED", "PREFERRED"):
            raise BadSetting(
                f"LATELY_{name.upper()} is for TLS, and {variable} can be without: "
                "set it to VERIFY_IDENTITY or REQUIRED"
            )


@lru_cache
def _context(
    server: str, ca: str, cert: str, key: str, is_verified: bool = True, is_name_checked: bool = True
) -> ssl.SSLContext:
    """Create a client's context that trusts `ca`, or the system's authorities if it is empty.

    Without verification it trusts every certificate, and loads no authorities.
    """
    prefix = f"LATELY_{server}"
    for name, path in (("CA", ca), ("CERT", cert), ("KEY", key)):
        if path:
            _require_readable(f"{prefix}_{name}", path)
    if bool(cert) != bool(key):
        present, missing = ("CERT", "KEY") if cert else ("KEY", "CERT")
        raise BadSetting(f"{prefix}_{present} is set without {prefix}_{missing}: set both, or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if not is_verified else _verifying_context(prefix, ca)
    # Some builds of Python leave the minimum to OpenSSL; a higher one in its configuration remains.
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    if cert:
        _load_certificate(context, prefix, cert, key)
    context.check_hostname = is_name_checked
    context.verify_mode = ssl.CERT_REQUIRED if is_verified else ssl.CERT_NONE
    return context


def _verifying_context(prefix: str, ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ValueError):
        raise BadSetting(f"{prefix}_CA: {ca!r} has no certificate: it must be a PEM file of authorities") from None


def _load_certificate(context: ssl.SSLContext, prefix: str, cert: str, key: str) -> None:
    def refuse_password() -> str:
        # Without this callback OpenSSL would ask the terminal for the password.
        raise BadSetting(
            f"{prefix}_KEY: {key!r} has a password: decrypt it with `openssl pkey`, and let only Lately read the file"
        )

    try:
        context.load_cert_chain(cert, key, password=refuse_password)
    except (OSError, ValueError) as exc:
        if getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH":
            raise BadSetting(f"{prefix}_KEY: {key!r} is not the key of {cert!r}: give those made together") from None
        raise BadSetting(
            f"{prefix}_CERT and {prefix}_KEY: {cert!r} and {key!r} must be a certificate and its private key, both PEM"
        ) from None


def _require_readable(name: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            return
    except (OSError, ValueError) as exc:
        cause = getattr(exc, "strerror", None) or exc
        raise BadSetting(f"{name}: {path!r} cannot be read ({cause}): it must be a PEM file") from None
