"""Settings: the only reader of the environment."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app import tls
from app.errors import BadSetting

PREFIX = "LATELY_"
#: LATELY_<NAME>_FILE names a file that holds a secret.
FILE = "_FILE"
MAX_PORT = 65_535
MAX_NUMBER = 2**31 - 1
#: A purchase has up to 6,420 bytes, a record 1 MiB.
MAX_RECENT = 128

MIN_SECRET_BYTES = 16

#: Answers from MySQL per second for want of a table, where a worker was told where MySQL is.
FALLBACK_PER_S = 20

#: Variables of earlier versions -> the error message for them.
REMOVED = {
    "LATELY_REPORT_DAILY": 'LATELY_REPORT_DAILY was removed in 0.2.0: run "lately report daily" from cron, a systemd '
    "timer or a Kubernetes CronJob"
}

#: The two ways to capture the shop's changes.
OUTBOX, WATERMARK = "outbox", "watermark"

#: What Lately calls a column of the shop's table; `category` may be missing.
COLUMNS = ("user_id", "order_id", "product_name", "price", "ordered_at", "payment_method", "category")
OPTIONAL_COLUMNS = ("payment_method", "category")
#: A column that is no part of an order: the trace in which it was placed.
TRACEPARENT = "traceparent"


def setting(
    default: object, help: str, *, least: int | None = None, secret: bool = False, choices: tuple[str, ...] = ()
):
    """A field of Settings with its help text; `least` is the smallest number allowed, `choices` all texts allowed."""
    metadata = {"help": help, "least": least, "secret": secret, "choices": choices}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All that can be set, each as the environment variable LATELY_<NAME>; secrets also as a file."""

    id: str = setting("lately", "name of the app: the consumer group and the prefix of its changelog topics")
    kafka: str = setting("127.0.0.1:9092", "Kafka's bootstrap servers, host:port[,host:port…]")
    kafka_security: str = setting(
        "PLAINTEXT", "how Kafka is reached: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL", choices=tls.PROTOCOLS
    )
    kafka_ca: str = setting("", "PEM file of the authorities that may sign Kafka's certificate; unset: the system's")
    kafka_cert: str = setting("", "PEM file of the certificate that Kafka is shown, for mutual TLS")
    kafka_key: str = setting("", "PEM file of its private key, without a password")
    kafka_sasl_mechanism: str = setting(
        "", "how the user logs in to Kafka: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", choices=("", *tls.MECHANISMS)
    )
    kafka_sasl_user: str = setting("", "the user of Kafka")
    kafka_sasl_password: str = setting("", "the password of Kafka's user", secret=True)
    topic_prefix: str = setting("", "put before the name of every topic, so that two shops can share a Kafka")
    partitions: int = setting(4, "partitions of every topic; `lately rescale` changes them", least=1)
    generation: int = setting(1, "which generation of topics and tables; `lately rescale` makes the next", least=1)
    replication: int = setting(1, "replicas of every topic; 3 on a real cluster", least=1)
    data_dir: str = setting(".lately/worker", "where a worker keeps its RocksDB tables; one folder per worker")
    web_host: str = setting("127.0.0.1", "address to serve HTTP on; other workers reach this one under it")
    web_port: int = setting(6066, "port to serve HTTP on", least=1)
    auth: str = setting(
        "none",
        "who may ask: none (everybody) or token (a user for their own data, an operator for all)",
        choices=("none", "token"),
    )
    auth_insecure: int = setting(
        0, "1: serve everybody's data to everybody on an address that is not loopback", least=0
    )
    token_secret: str = setting("", f"what tokens are signed with, {MIN_SECRET_BYTES} bytes or more", secret=True)
    rate_per_s: int = setting(0, "requests per second that one client may send to one worker; 0: any number", least=0)
    forward_ms: int = setting(300, "how long a worker waits for the worker that owns a user, ms", least=1)
    cursor_secret: str = setting("", "signs cursors, the same on all workers; unset: made from LATELY_ID", secret=True)
    heartbeat_s: int = setting(15, "pause after which a stream that has nothing to say sends a comment, s", least=1)
    streams: int = setting(1000, "streams that a worker has open at most", least=1)
    source_reads: int = setting(
        4, "reads of MySQL that a worker has open at most in place of a table, and as many asked for", least=1
    )
    fallback_per_s: int = setting(
        0,
        "requests per second that a worker answers from MySQL while no worker has the user's table; 0: none; "
        f"with LATELY_MYSQL_HOST the default is {FALLBACK_PER_S}",
        least=0,
    )
    fallback_ms: int = setting(1000, "how long a request waits for such a read, ms", least=1)
    fallback_failures: int = setting(3, "after so many failures of such reads in a row MySQL is left alone", least=1)
    fallback_pause_s: int = setting(10, "for so long, then it is tried again, s", least=1)
    session_timeout_s: int = setting(8, "after so many silent seconds a worker counts as dead", least=1)
    instance_id: str = setting(
        "", "a name of this worker's own that a restart keeps: within the session timeout nothing is given to others"
    )
    stuck_s: int = setting(
        60, "after so many seconds without progress a worker that has work is not ready; 0: never", least=0
    )
    stuck_exit_s: int = setting(180, "after so many such seconds it ends with 70; 0: never", least=0)
    away_s: int = setting(
        300, "after so many seconds without Kafka or a source a worker is not ready; 0: never", least=0
    )
    away_exit_s: int = setting(0, "after so many such seconds it ends with 70; 0: never", least=0)
    standby_replicas: int = setting(0, "copies of each partition on other workers, that take over faster", least=0)
    agents: str = setting("", "agents that this process runs: by_user,by_product,baskets,similar; empty: all")
    by_product: int = setting(1, "0: keep no totals by product, which makes the rest faster", least=0)
    similar: int = setting(1, "0: do not count which products are bought by the same users", least=0)
    cache_mb: int = setting(256, "memory for the values changed last, MiB per worker", least=1)
    block_cache_mb: int = setting(256, "memory for what is read from disk, MiB per worker", least=1)
    log: str = setting("text", "what the log of a worker or source is: text or json, an object per line",
                       choices=("text", "json"))  # fmt: skip
    log_pii: int = setting(0, "1: the log may quote values of orders; 0: they are masked", least=0)
    recent_limit: int = setting(20, "purchases shown per user", least=1)
    recent_spare: int = setting(12, "purchases kept in the same value beyond that, to fill up after removals", least=0)
    mysql_host: str = setting("127.0.0.1", "MySQL or MariaDB server of the shop")
    mysql_port: int = setting(3306, "its port", least=1)
    mysql_user: str = setting("root", "its user")
    mysql_password: str = setting("", "the user's password", secret=True)
    mysql_database: str = setting("shop", "the shop's database")
    mysql_tls: str = setting(
        "PREFERRED",
        "TLS to MySQL, in the words of its own clients: DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY",
        choices=tls.MODES,
    )
    mysql_ca: str = setting("", "PEM file of the authorities that may sign MySQL's certificate; unset: the system's")
    mysql_cert: str = setting("", "PEM file of the certificate that MySQL is shown, for mutual TLS")
    mysql_key: str = setting("", "PEM file of its private key, without a password")
    source_table: str = setting("orders", "the shop's table of orders")
    source_columns: str = setting(
        "",
        "how the shop names its columns: user_id=customer,price=amount; unnamed ones keep their name; "
        "traceparent=… names one that there need not be",
    )
    source_mode: str = setting(
        OUTBOX, "how changes are captured: outbox (by triggers) or watermark (read only)", choices=(OUTBOX, WATERMARK)
    )
    source_id: str = setting("id", "the AUTO_INCREMENT column of the shop's table that the watermark follows")
    source_settle_s: int = setting(
        300, "without proof, a missing id is passed after so many seconds (watermark)", least=1
    )
    source_outbox: str = setting("purchase_outbox", "the outbox table that the triggers write to")
    source_poll_ms: int = setting(100, "longest pause between two looks at an empty outbox, ms", least=1)
    source_batch_rows: int = setting(500, "rows read and published at once", least=1)
    source_metrics_port: int = setting(0, "port on which `lately source` serves /metrics; 0: it does not", least=0)

    report_tz: str = setting("UTC", "time zone of the days of reports, such as Europe/Berlin")
    report_dir: str = setting(".lately/reports", "folder in which `lately report daily` stores the reports")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environ` (default: the process's own).

        A secret can also lie in the file that LATELY_<NAME>_FILE names; a line end after it does not count.
        Raises BadSetting for a variable that starts with LATELY_ and is not known, a value of the wrong kind, or a file
        that cannot be read.
        """
        environ = os.environ if environ is None else environ
        fields = {PREFIX + f.name.upper(): f for f in dataclasses.fields(cls)}
        files = {name + FILE: name for name, spec in fields.items() if spec.metadata["secret"]}
        values = {}
        for name, text in sorted(environ.items()):
            if not name.startswith(PREFIX):
                continue
            if name in REMOVED:
                raise BadSetting(REMOVED[name])
            if name in files:
                if files[name] in environ:
                    raise BadSetting(f"{files[name]} and {name} exclude each other: unset one of them")
                values[fields[files[name]].name] = _read_secret(name, text)
            elif name in fields:
                values[fields[name].name] = _parse(name, text, fields[name])
            else:
                raise BadSetting(f"unknown setting {name}{_nearest(name, [*fields, *files])}")
        # `faust --datadir` reaches the app only as this variable, and beats ours; unset it is a template.
        chosen = environ.get("F_DATADIR", "")
        if chosen and "{" not in chosen:
            values["data_dir"] = chosen
        # A worker can do without MySQL, and then it is not to be asked.
        if PREFIX + "MYSQL_HOST" in environ:
            values.setdefault("fallback_per_s", FALLBACK_PER_S)
        settings = cls(**values)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise BadSetting for a value that can be seen to be wrong without asking a server."""
        for server in self.kafka.split(","):
            host, _, port = server.rpartition(":")
            if not re.fullmatch(r"[^\s/:;]+|\[[0-9a-fA-F:]+\]", host) or not _number(port, 1, MAX_PORT):
                raise BadSetting(f"LATELY_KAFKA: {server!r} is not host:port, for example 127.0.0.1:9092")
        for name in ("id", "topic_prefix", "instance_id"):
            if not re.fullmatch(r"[A-Za-z0-9._-]{0,100}", getattr(self, name)) or (name == "id" and not self.id):
                raise BadSetting(
                    f"LATELY_{name.upper()}: {getattr(self, name)!r} must be letters, digits, '.', '_' and '-'"
                )
        # The triggers are named after the outbox, with 7 characters more.
        for name, longest in (("source_table", 64), ("source_id", 64), ("source_outbox", 57), ("mysql_database", 64)):
            if not re.fullmatch(rf"[^`\0/\\]{{1,{longest}}}", getattr(self, name)):
                raise BadSetting(
                    f"LATELY_{name.upper()}: {getattr(self, name)!r} must be a name of 1 to {longest} characters"
                )
        for name in ("data_dir", "web_host", "mysql_host", "report_dir"):
            if not getattr(self, name):
                raise BadSetting(f"LATELY_{name.upper()} is empty: leave it unset for the default")
        try:
            zoneinfo.ZoneInfo(self.report_tz)
        except (KeyError, ValueError, OSError):
            raise BadSetting(f"LATELY_REPORT_TZ: {self.report_tz!r} is not a time zone such as Europe/Berlin") from None
        if self.auth_insecure > 1:
            raise BadSetting(f"LATELY_AUTH_INSECURE: {self.auth_insecure} is neither 0 nor 1")
        if (self.auth == "token" or self.token_secret) and len(self.token_secret.encode()) < MIN_SECRET_BYTES:
            raise BadSetting(
                f"LATELY_TOKEN_SECRET must have {MIN_SECRET_BYTES} bytes or more: "
                "make one with `openssl rand -hex 32`, the same for all workers"
            )
        if self.recent_limit + self.recent_spare > MAX_RECENT:
            raise BadSetting(
                f"LATELY_RECENT_LIMIT and LATELY_RECENT_SPARE are {self.recent_limit} and {self.recent_spare}: "
                f"together at most {MAX_RECENT}, or a user's value would not fit a Kafka record"
            )
        for name in ("stuck", "away"):
            not_ready, ends = getattr(self, f"{name}_s"), getattr(self, f"{name}_exit_s")
            if 0 < ends <= not_ready:
                raise BadSetting(
                    f"LATELY_{name.upper()}_EXIT_S: {ends} must be more than LATELY_{name.upper()}_S, which is "
                    f"{not_ready}, so that somebody can see what it is before the worker ends; 0: it never ends"
                )
        _ = self.columns
        tls.check(self)

    @property
    def columns(self) -> dict[str, str]:
        """Lately's column name -> the shop's column name, for all of COLUMNS."""
        named = self._named_columns()
        return {name: named.get(name, name) for name in COLUMNS}

    @property
    def traceparent_column(self) -> str | None:
        """The shop's column of W3C trace contexts, None where it has none."""
        return self._named_columns().get(TRACEPARENT)

    def _named_columns(self) -> dict[str, str]:
        named: dict[str, str] = {}
        known = [*COLUMNS, TRACEPARENT]
        for pair in filter(None, (part.strip() for part in self.source_columns.split(","))):
            ours, sign, theirs = (part.strip() for part in pair.partition("="))
            if not sign or not theirs or "`" in theirs:
                raise BadSetting(f"LATELY_SOURCE_COLUMNS: {pair!r} is not like user_id=customer")
            if ours not in known:
                raise BadSetting(f"LATELY_SOURCE_COLUMNS: unknown column {ours}{_nearest(ours, known)}")
            if ours in named:
                raise BadSetting(f"LATELY_SOURCE_COLUMNS: {ours} is named twice")
            named[ours] = theirs
        return named

    @property
    def group(self) -> str:
        """The consumer group, which also begins the names of what only this app writes."""
        return self.id if self.generation == 1 else f"{self.id}-g{self.generation}"

    @property
    def prefix(self) -> str:
        """What the names of the topics begin with that apps of another id can share."""
        return self.topic_prefix if self.generation == 1 else f"{self.topic_prefix}g{self.generation}-"

    @property
    def folder(self) -> str:
        """Where this generation keeps its tables; what commands keep begins with the same path."""
        return self.data_dir if self.generation == 1 else f"{self.data_dir}/g{self.generation}"

    @property
    def kafka_servers(self) -> list[str]:
        """The bootstrap servers as a list of host:port."""
        return self.kafka.split(",")

    def shown(self) -> dict[str, object]:
        """All settings for people to read, secrets as ***."""
        return {
            f.name: "***" if f.metadata["secret"] and getattr(self, f.name) else getattr(self, f.name)
            for f in dataclasses.fields(self)
        }


def otel_exporter(environ: Mapping[str, str] | None = None) -> str | None:
    """The exporter of spans that OpenTelemetry's own variables ask for, by its entry point; None: no spans."""
    environ = os.environ if environ is None else environ
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    named = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not named:
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        named = "otlp" if any(environ.get(name) for name in endpoints) else "none"
    if named == "otlp":
        protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        return "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    return None if named == "none" else named


def _parse(name: str, text: str, spec: dataclasses.Field) -> str | int:
    if not isinstance(spec.default, int):
        choices = spec.metadata["choices"]
        if choices and text not in choices:
            raise BadSetting(f"{name}: {text!r} is not one of {', '.join(filter(None, choices))}")
        return text
    least, most = spec.metadata["least"], MAX_PORT if name.endswith("_PORT") else MAX_NUMBER
    if not _number(text, least, most):
        raise BadSetting(f"{name}: {text!r} is not a whole number from {least} to {most}")
    return int(text)


def _read_secret(name: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as exc:
        cause = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise BadSetting(
            f"{name}: {path!r} cannot be read ({cause}): it must be a file that holds the secret and nothing else"
        ) from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise BadSetting(f"{name}: {path!r} is empty: write the secret into it, or unset {name}")
    return secret


def _number(text: str, least: int, most: int) -> bool:
    return re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) is not None and least <= int(text) <= most


def _nearest(name: str, known: list[str]) -> str:
    spelled = {one.upper(): one for one in known}
    close = difflib.get_close_matches(name.upper(), list(spelled), n=1, cutoff=0.0)
    return f"; did you mean {spelled[close[0]]}?" if close else ""
