"""What `lately doctor` reports about access, encryption and privileges."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import closing

from app.settings import Settings
from source.accounts import read_session_grants
from source.findings import OK, WARNING, Finding
from source.mysql import connect
from source.privileges import Need

#: Privileges that give an account more than Lately ever needs.
_EXCESSIVE = ("SUPER", "FILE", "SHUTDOWN", "CREATE USER", "GRANT OPTION", "SYSTEM_USER")
_ENCRYPTED_KAFKA = ("SSL", "SASL_SSL")
_VERIFIED_MYSQL = ("VERIFY_CA", "VERIFY_IDENTITY")


def check_security(settings: Settings) -> Iterator[Finding]:
    """Yield the findings. Raises BadSource, DatabaseAway."""
    findings = [*_check_settings(settings), *_check_account(settings)]
    yield from findings or [Finding("security", OK, "connections are verified, and tokens and keys are set")]


def _check_settings(settings: Settings) -> Iterator[Finding]:
    is_local = all(_is_loopback(server.rpartition(":")[0]) for server in settings.kafka_servers)
    if settings.kafka_security not in _ENCRYPTED_KAFKA and not is_local:
        yield Finding(
            "security kafka", WARNING, f"LATELY_KAFKA_SECURITY={settings.kafka_security} is not encrypted",
            "use SASL_SSL or SSL; ACLs decide who may write to the topics (docs/security.md)",
        )  # fmt: skip
    if settings.mysql_tls not in _VERIFIED_MYSQL and not _is_loopback(settings.mysql_host):
        yield Finding(
            "security mysql", WARNING, f"LATELY_MYSQL_TLS={settings.mysql_tls} does not verify the server",
            "LATELY_MYSQL_TLS=VERIFY_IDENTITY with LATELY_MYSQL_CA",
        )  # fmt: skip
    if settings.auth == "none" and not _is_loopback(settings.web_host):
        yield Finding(
            "security web", WARNING, "every client that reaches the worker may read all purchases",
            "LATELY_AUTH=token, with LATELY_TOKEN_SECRET",
        )  # fmt: skip
    if not settings.signing_key and not is_local:
        yield Finding(
            "security states", WARNING, "whoever may write to Kafka can write the source's state",
            "LATELY_SIGNING_KEY, the same for all processes",
        )  # fmt: skip
    for name in ("token_secret", "signing_key"):
        if getattr(settings, f"{name}_previous"):
            yield Finding(
                "security rotation", WARNING, f"LATELY_{name.upper()}_PREVIOUS is still accepted",
                "unset it when nothing uses it any more",
            )  # fmt: skip


def _check_account(settings: Settings) -> Iterator[Finding]:
    with closing(connect(settings)) as connection:
        granted = read_session_grants(connection)
    excessive = [name for name in _EXCESSIVE if granted.has(Need(name))]
    if excessive and not _is_loopback(settings.mysql_host):
        names = ", ".join(excessive)
        yield Finding(
            "security account", WARNING, f"{settings.mysql_user} has privileges that Lately never uses: {names}",
            "`lately source setup --print-sql` prints an account with the least privileges",
        )  # fmt: skip


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
