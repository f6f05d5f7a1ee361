"""Settings, read from the environment: the only reader of LATELY_* variables."""

from __future__ import annotations

import dataclasses
import os
import re
import zoneinfo
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from app import tls
from app.errors import BadSetting
from app.setting_values import (
    COLUMNS,
    FALLBACK_PER_S,
    MAX_NAME_CHARACTERS,
    MAX_PORT,
    MIN_SECRET_BYTES,
    OPTIONAL_COLUMNS,
    OUTBOX,
    WATERMARK,
    SettingValues,
    suggest,
)

__all__ = [
    "COLUMNS", "FALLBACK_PER_S", "FILE_SUFFIX", "OPTIONAL_COLUMNS", "OUTBOX", "WATERMARK", "Settings",
]  # fmt: skip

PREFIX = "LATELY_"
#: LATELY_<NAME>_FILE names a file that contains a secret.
FILE_SUFFIX = "_FILE"
#: A purchase has up to 6,420 bytes, a record of Kafka 1 MiB.
MAX_RECENT = 128
#: The names of triggers, and of the tables beside the outbox, have up to 7 characters more.
MAX_OUTBOX_CHARACTERS = 57

#: Variables of earlier versions -> the error message for them.
REMOVED = {
    "LATELY_REPORT_DAILY": 'LATELY_REPORT_DAILY was removed in 0.2.0: run "lately report daily" from cron, a systemd '
    "timer or a Kubernetes CronJob"
}


class Settings(SettingValues):
    """The settings of a process."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environ`; the default is the environment of the process.

        A secret can also be in the file that LATELY_<NAME>_FILE names; one line end after it is
        ignored. Raises BadSetting for an unknown variable that starts with LATELY_, for an invalid
        value, and for a file that cannot be read.
        """
        environ = os.environ if environ is None else environ
        fields = {PREFIX + spec.name.upper(): spec for spec in dataclasses.fields(cls)}
        files = {name + FILE_SUFFIX: name for name, spec in fields.items() if spec.metadata["secret"]}
        values: dict[str, Any] = {}
        for name, text in sorted(environ.items()):
            if not name.startswith(PREFIX):
                continue
            if name in REMOVED:
                raise BadSetting(REMOVED[name])
            if not _is_unicode(name + text):
                raise BadSetting(f"{name!a}: the variable contains bytes that are not UTF-8")
            if name in files:
                if files[name] in environ:
                    raise BadSetting(f"{files[name]} and {name} exclude each other: unset one of them")
                values[fields[files[name]].name] = _read_secret(name, text)
            elif name in fields:
                values[fields[name].name] = _parse(name, text, _types()[fields[name].name])
            else:
                raise BadSetting(f"unknown setting {name}{suggest(name, [*fields, *files])}")
        # `faust --datadir` reaches the app only as this variable, and overrides ours; unset it is a
        # template.
        faust_folder = environ.get("F_DATADIR", "")
        if faust_folder and "{" not in faust_folder:
            values["data_dir"] = faust_folder
        # A worker does not need MySQL, so it is read only if its host is set.
        if PREFIX + "MYSQL_HOST" in environ:
            values.setdefault("fallback_per_s", FALLBACK_PER_S)
        settings = cls(**values)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise BadSetting for a value that is wrong without asking a server."""
        self._check_servers()
        self._check_names()
        for name in ("data_dir", "web_host", "mysql_host", "report_dir"):
            if not getattr(self, name):
                raise BadSetting(f"LATELY_{name.upper()} is empty: leave it unset for the default")
        try:
            zoneinfo.ZoneInfo(self.report_tz)
        except (KeyError, ValueError, OSError):
            raise BadSetting(f"LATELY_REPORT_TZ: {self.report_tz!r} is not a time zone such as Europe/Berlin") from None
        self._check_secrets()
        if self.recent_limit + self.recent_spare > MAX_RECENT:
            raise BadSetting(
                f"LATELY_RECENT_LIMIT and LATELY_RECENT_SPARE are {self.recent_limit} and {self.recent_spare}: "
                f"together at most {MAX_RECENT}, or a user's value would not fit a Kafka record"
            )
        for name in ("stuck", "away"):
            not_ready_s, exit_s = getattr(self, f"{name}_s"), getattr(self, f"{name}_exit_s")
            if 0 < exit_s <= not_ready_s:
                raise BadSetting(
                    f"LATELY_{name.upper()}_EXIT_S: {exit_s} must be more than LATELY_{name.upper()}_S, which is "
                    f"{not_ready_s}, so that somebody can see what it is before the worker ends; 0: it never ends"
                )
        _ = self.columns
        self._check_definer()
        tls.check_settings(self)

    def _check_secrets(self) -> None:
        is_needed = {"token_secret": self.auth == "token"}
        for name in ("token_secret", "token_secret_previous", "signing_key", "signing_key_previous"):
            secret = getattr(self, name)
            if (secret or is_needed.get(name)) and len(secret.encode()) < MIN_SECRET_BYTES:
                raise BadSetting(
                    f"LATELY_{name.upper()} must have {MIN_SECRET_BYTES} bytes or more: "
                    "make one with `openssl rand -hex 32`, the same for all workers"
                )

    def _check_servers(self) -> None:
        for server in self.kafka_servers:
            host, _, port = server.rpartition(":")
            is_host = re.fullmatch(r"[^\s/:;]+|\[[0-9a-fA-F:]+\]", host)
            if not is_host or not _is_digits(port) or not 1 <= int(port) <= MAX_PORT:
                raise BadSetting(f"LATELY_KAFKA: {server!r} is not host:port, for example 127.0.0.1:9092")

    def _check_names(self) -> None:
        for name in ("id", "topic_prefix", "instance_id"):
            if not re.fullmatch(r"[A-Za-z0-9._-]{0,100}", getattr(self, name)) or (name == "id" and not self.id):
                raise BadSetting(
                    f"LATELY_{name.upper()}: {getattr(self, name)!r} must be letters, digits, '.', '_' and '-'"
                )
        for name in ("source_table", "source_id", "mysql_database"):
            if not _is_table_name(getattr(self, name), MAX_NAME_CHARACTERS):
                raise BadSetting(
                    f"LATELY_{name.upper()}: {getattr(self, name)!r} must be a name of 1 to "
                    f"{MAX_NAME_CHARACTERS} characters"
                )
        schema, dot, table = self.source_outbox.rpartition(".")
        is_valid = _is_table_name(table, MAX_OUTBOX_CHARACTERS) and "." not in schema
        if self.source_outbox and not (is_valid and (not dot or _is_table_name(schema, MAX_NAME_CHARACTERS))):
            raise BadSetting(
                f"LATELY_SOURCE_OUTBOX: {self.source_outbox!r} must be table or schema.table, where the table has 1 to "
                f"{MAX_OUTBOX_CHARACTERS} characters and the schema 1 to {MAX_NAME_CHARACTERS}"
            )

    def _check_definer(self) -> None:
        # MySQL allows 32 characters for a user and 255 for a host.
        if self.source_definer and not re.fullmatch(r"[^`\0\\]{1,32}@[^`\0\\@\s]{1,255}", self.source_definer):
            raise BadSetting(
                f"LATELY_SOURCE_DEFINER: {self.source_definer!r} is not user@host, for example lately_trigger@localhost"
            )

    def to_display(self) -> dict[str, object]:
        """Return all settings for people to read: secrets as ***, switches as 0 and 1."""
        return {
            spec.name: _display(getattr(self, spec.name), spec.metadata["secret"]) for spec in dataclasses.fields(self)
        }


def _is_table_name(name: str, max_characters: int) -> bool:
    return re.fullmatch(rf"[^`\0/\\]{{1,{max_characters}}}", name) is not None


def _display(value: object, is_secret: bool) -> object:
    if is_secret and value:
        return "***"
    return int(value) if isinstance(value, bool) else value


@cache
def _types() -> dict[str, Any]:
    """The types of the settings, with their bounds."""
    return get_type_hints(SettingValues, include_extras=True)


def _parse(variable: str, text: str, kind: Any) -> object:
    """Convert the text of a variable to the type of its setting. Raises BadSetting."""
    # msgspec also reads 1e3 and 1.0 as whole numbers, so it gets digits only.
    is_text = kind is str or get_origin(kind) is Literal
    value = int(text) if not is_text and _is_digits(text) else text
    try:
        return msgspec.convert(value, kind, strict=isinstance(value, str))
    except msgspec.ValidationError:
        raise BadSetting(f"{variable}: {_mismatch(text, kind)}") from None


def _mismatch(text: str, kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"{text!r} is not one of {', '.join(filter(None, get_args(kind)))}"
    if kind is bool:
        return f"{text} is neither 0 nor 1" if _is_digits(text) else f"{text!r} is not a whole number from 0 to 1"
    bounds = get_args(kind)[1]
    return f"{text!r} is not a whole number from {bounds.ge} to {bounds.le}"


def _is_unicode(text: str) -> bool:
    """Return False if `text` stands for bytes of the environment that are not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _is_digits(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) is not None


def _read_secret(variable: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as exc:
        cause = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise BadSetting(
            f"{variable}: {path!r} cannot be read ({cause}): it must be a file that holds the secret and nothing else"
        ) from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise BadSetting(f"{variable}: {path!r} is empty: write the secret into it, or unset {variable}")
    return secret
