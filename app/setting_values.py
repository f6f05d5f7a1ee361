"""Every setting: its name, type, bounds, default and help text.

This module is pure; app.settings reads the environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta

from app.errors import BadSetting

MAX_NUMBER = 2**31 - 1
MAX_PORT = 65_535
MIN_SECRET_BYTES = 16

#: The default of LATELY_FALLBACK_PER_S on a worker with LATELY_MYSQL_HOST.
FALLBACK_PER_S = 20

#: The default table of the outbox, and the suffix of the shop's database in the name of its schema.
DEFAULT_OUTBOX, OUTBOX_SCHEMA_SUFFIX = "purchase_outbox", "_lately"
#: MySQL's limit for names of schemas, tables, columns and triggers.
MAX_NAME_CHARACTERS = 64

#: The two ways to capture the shop's changes.
OUTBOX, WATERMARK = "outbox", "watermark"

#: Lately's names of the columns of the shop's table; the table may lack OPTIONAL_COLUMNS.
COLUMNS = ("user_id", "order_id", "product_name", "price", "ordered_at", "payment_method", "category")
OPTIONAL_COLUMNS = ("payment_method", "category")
#: The column of the trace in which an order was placed; it is not a part of the order.
TRACEPARENT = "traceparent"

PositiveInt = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
#: Zero has the meaning that the help text of the setting describes.
NonNegativeInt = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Port = Annotated[int, Meta(ge=1, le=MAX_PORT)]
OptionalPort = Annotated[int, Meta(ge=0, le=MAX_PORT)]

KafkaSecurity = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
MysqlTls = Literal["DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"]


def setting(default: Any, help: str, *, secret: bool = False) -> Any:
    """Declare a setting with its help text; a secret is masked and can be read from a file."""
    return field(default=default, repr=not secret, metadata={"help": help, "secret": secret})


class OutboxName(NamedTuple):
    """Schema and name of the outbox table."""

    schema: str
    table: str


@dataclass(frozen=True)
class SettingValues:
    """The values of all settings; each is the environment variable LATELY_<NAME>."""

    id: str = setting("lately", "name of the app: the consumer group and the prefix of its changelog topics")
    kafka: str = setting("127.0.0.1:9092", "Kafka's bootstrap servers, host:port[,host:port…]")
    kafka_security: KafkaSecurity = setting(
        "PLAINTEXT", "security protocol of Kafka: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    kafka_ca: str = setting("", "PEM file of the authorities that may sign Kafka's certificate; unset: the system's")
    kafka_cert: str = setting("", "PEM file of the client certificate for Kafka, for mutual TLS")
    kafka_key: str = setting("", "PEM file of its private key, without a password")
    kafka_sasl_mechanism: SaslMechanism = setting("", "SASL mechanism for Kafka: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
    kafka_sasl_user: str = setting("", "user name for Kafka")
    kafka_sasl_password: str = setting("", "password for Kafka", secret=True)
    topic_prefix: str = setting("", "prefix of the names of all topics, so that two shops can share a Kafka")
    partitions: PositiveInt = setting(4, "partitions of every topic; `lately rescale` changes them")
    generation: PositiveInt = setting(1, "generation of topics and tables; `lately rescale` creates the next")
    replication: PositiveInt = setting(1, "replicas of every topic; 3 on a real cluster")
    data_dir: str = setting(".lately/worker", "folder of a worker's RocksDB tables; one folder per worker")
    web_host: str = setting("127.0.0.1", "address to serve HTTP on; other workers reach this worker at it")
    web_port: Port = setting(6066, "port to serve HTTP on")
    auth: Literal["none", "token"] = setting(
        "none", "access control: none (everybody) or token (a user for their own data, an operator for all)"
    )
    auth_insecure: bool = setting(False, "1: without tokens, serve all data also on an address that is not loopback")
    token_secret: str = setting("", f"secret that signs tokens, {MIN_SECRET_BYTES} bytes or more", secret=True)
    token_secret_previous: str = setting("", "secret before a rotation, whose tokens are still valid", secret=True)
    token_audience: str = setting("", "audience (claim aud) that tokens must name; unset: tokens of any audience")
    signing_key: str = setting(
        "",
        f"key that signs the source's state and the workers' addresses, {MIN_SECRET_BYTES} bytes or more, equal for "
        "all processes; unset: addresses are signed with LATELY_TOKEN_SECRET, states are not",
        secret=True,
    )
    signing_key_previous: str = setting("", "key before a rotation, whose signatures are still valid", secret=True)
    rate_per_s: NonNegativeInt = setting(0, "requests per second that one client may send to one worker; 0: any number")
    forward_ms: PositiveInt = setting(300, "timeout of a request to the worker that owns a user, ms")
    cursor_secret: str = setting(
        "", "secret that signs cursors, equal on all workers; unset: derived from LATELY_ID", secret=True
    )
    heartbeat_s: PositiveInt = setting(15, "interval of comments on a stream without events, s")
    streams: PositiveInt = setting(1000, "maximum number of open streams per worker")
    source_reads: PositiveInt = setting(
        4, "maximum number of MySQL reads open at once per worker, in place of a table, and as many on request"
    )
    fallback_per_s: NonNegativeInt = setting(
        0,
        "requests per second that a worker answers from MySQL while no worker has the user's table; 0: none; "
        f"with LATELY_MYSQL_HOST the default is {FALLBACK_PER_S}",
    )
    fallback_ms: PositiveInt = setting(1000, "timeout of such a read for the request, ms")
    fallback_failures: PositiveInt = setting(3, "number of consecutive failures after which these reads pause")
    fallback_pause_s: PositiveInt = setting(10, "length of this pause, s")
    session_timeout_s: PositiveInt = setting(8, "seconds without a heartbeat after which a worker counts as dead")
    instance_id: str = setting(
        "", "name of this worker that a restart keeps: within the session timeout it keeps its partitions"
    )
    stuck_s: NonNegativeInt = setting(
        60, "seconds without progress after which a worker with pending work is not ready; 0: never"
    )
    stuck_exit_s: NonNegativeInt = setting(180, "seconds without progress after which it exits with 70; 0: never")
    away_s: NonNegativeInt = setting(
        300, "seconds without Kafka or a source after which a worker is not ready; 0: never"
    )
    away_exit_s: NonNegativeInt = setting(0, "seconds without Kafka or a source after which it exits with 70; 0: never")
    standby_replicas: NonNegativeInt = setting(0, "copies of each partition on other workers, for a faster takeover")
    agents: str = setting("", "agents that this process runs: by_user,by_product,baskets,similar; empty: all")
    by_product: bool = setting(True, "0: no totals by product, which makes the rest faster")
    similar: bool = setting(True, "0: no counts of the products that are bought by the same users")
    cache_mb: PositiveInt = setting(256, "memory for the values changed last, MiB per worker")
    block_cache_mb: PositiveInt = setting(256, "memory for blocks read from disk, MiB per worker")
    log: Literal["text", "json"] = setting(
        "text", "log format of a worker or source: text, or json with an object per line"
    )
    log_pii: bool = setting(False, "1: the log may quote values of orders; 0: they are masked")
    recent_limit: PositiveInt = setting(20, "default number of purchases in a response about a user")
    recent_spare: NonNegativeInt = setting(
        12, "purchases stored in the same value beyond that number, to fill up after removals"
    )
    mysql_host: str = setting("127.0.0.1", "MySQL or MariaDB server of the shop")
    mysql_port: Port = setting(3306, "its port")
    mysql_user: str = setting("root", "user name for MySQL")
    mysql_password: str = setting("", "password for MySQL", secret=True)
    mysql_database: str = setting("shop", "the shop's database")
    mysql_tls: MysqlTls = setting(
        "PREFERRED",
        "TLS to MySQL, as --ssl-mode of its own clients: DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY",
    )
    mysql_ca: str = setting("", "PEM file of the authorities that may sign MySQL's certificate; unset: the system's")
    mysql_cert: str = setting("", "PEM file of the client certificate for MySQL, for mutual TLS")
    mysql_key: str = setting("", "PEM file of its private key, without a password")
    source_table: str = setting("orders", "the shop's table of orders")
    source_columns: str = setting(
        "",
        "the shop's column names: user_id=customer,price=amount; columns not listed keep their name; "
        "traceparent=… names an optional column",
    )
    source_mode: Literal["outbox", "watermark"] = setting(
        "outbox", "capture of changes: outbox (by triggers) or watermark (read only)"
    )
    source_id: str = setting("id", "AUTO_INCREMENT column of the shop's table that the watermark follows")
    source_settle_s: PositiveInt = setting(300, "seconds after which a missing id is skipped without proof (watermark)")
    source_outbox: str = setting(
        "",
        "outbox table that the triggers write to: table (in the shop's database) or schema.table; unset: "
        f"<database>{OUTBOX_SCHEMA_SUFFIX}.{DEFAULT_OUTBOX}, or the outbox of an earlier version",
    )
    source_definer: str = setting(
        "", "account with whose privileges the triggers run, as user@host; unset: the user that runs the setup"
    )
    source_poll_ms: PositiveInt = setting(100, "maximum pause between two reads of an empty outbox, ms")
    source_batch_rows: PositiveInt = setting(500, "maximum number of rows read and published at once")
    source_metrics_port: OptionalPort = setting(0, "port on which `lately source` serves /metrics; 0: none")

    report_tz: str = setting("UTC", "time zone of the days of reports, such as Europe/Berlin")
    report_dir: str = setting(".lately/reports", "folder in which `lately report daily` stores the reports")

    @property
    def token_secrets(self) -> tuple[str, ...]:
        """The secrets whose tokens are valid, the one that signs new tokens first."""
        return tuple(filter(None, (self.token_secret, self.token_secret_previous)))

    @property
    def columns(self) -> dict[str, str]:
        """Lately's column name -> the shop's column name, for all of COLUMNS. Raises BadSetting."""
        names = self._column_names()
        return {name: names.get(name, name) for name in COLUMNS}

    @property
    def traceparent_column(self) -> str | None:
        """The shop's column of W3C trace contexts; None if it has none. Raises BadSetting."""
        return self._column_names().get(TRACEPARENT)

    def _column_names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        valid_names = [*COLUMNS, TRACEPARENT]
        for pair in filter(None, (part.strip() for part in self.source_columns.split(","))):
            ours, sign, theirs = (part.strip() for part in pair.partition("="))
            if not sign or not theirs or "`" in theirs:
                raise BadSetting(f"LATELY_SOURCE_COLUMNS: {pair!r} is not like user_id=customer")
            if ours not in valid_names:
                raise BadSetting(f"LATELY_SOURCE_COLUMNS: unknown column {ours}{suggest(ours, valid_names)}")
            if ours in names:
                raise BadSetting(f"LATELY_SOURCE_COLUMNS: {ours} is named twice")
            names[ours] = theirs
        return names

    @property
    def shop_table(self) -> str:
        """The name of the shop's table for people and in states: database.table."""
        return f"{self.mysql_database}.{self.source_table}"

    @property
    def outbox(self) -> OutboxName:
        """Schema and table of the outbox; without LATELY_SOURCE_OUTBOX those of a new installation."""
        schema, _, table = self.source_outbox.rpartition(".")
        if table:
            return OutboxName(schema or self.mysql_database, table)
        schema = f"{self.mysql_database}{OUTBOX_SCHEMA_SUFFIX}"
        is_too_long = len(schema) > MAX_NAME_CHARACTERS
        return OutboxName(self.mysql_database if is_too_long else schema, DEFAULT_OUTBOX)

    @property
    def group(self) -> str:
        """The default consumer group, and the prefix of everything that only this app writes."""
        return self.id if self.generation == 1 else f"{self.id}-g{self.generation}"

    @property
    def prefix(self) -> str:
        """The prefix of the topics that apps with other ids can share."""
        return self.topic_prefix if self.generation == 1 else f"{self.topic_prefix}g{self.generation}-"

    @property
    def folder(self) -> str:
        """The folder of this generation's tables; the files of commands have the same prefix."""
        return self.data_dir if self.generation == 1 else f"{self.data_dir}/g{self.generation}"

    @property
    def worker_url(self) -> str:
        """The base URL of the worker with these settings."""
        return f"http://{bracketed(self.web_host)}:{self.web_port}"

    @property
    def kafka_servers(self) -> list[str]:
        """The bootstrap servers as a list of host:port."""
        return self.kafka.split(",")


def bracketed(host: str) -> str:
    """Return the host as a URL contains it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def suggest(name: str, candidates: Iterable[str]) -> str:
    """Return the end of an error message that suggests the candidate nearest to `name`."""
    spellings = {candidate.upper(): candidate for candidate in candidates}
    nearest = difflib.get_close_matches(name.upper(), list(spellings), n=1, cutoff=0.0)
    return f"; did you mean {spellings[nearest[0]]}?" if nearest else ""
