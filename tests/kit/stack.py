"""A shop and its Lately on real servers: one database, one set of topics, real processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import uuid
from collections import defaultdict
from concurrent.futures import wait
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import mysql.connector
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from mysql.connector import errorcode

from app.control import state_topic
from app.settings import Settings
from app.topics import Topics
from local.process import LocalProcess, find_free_port
from local.shop import TABLE
from source.outbox_table import quoted_outbox, trigger_name, with_outbox
from source.setup import setup
from source.status import read_status
from tests.kit.eventually import eventually
from tests.kit.http_client import HttpClient
from tests.kit.python_process import PythonProcess

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
#: Of each topic of a stack, half of the default: each one costs the broker and the workers time.
PARTITIONS = 2


@dataclass(frozen=True)
class Servers:
    """Where Kafka and the database answer, and whether the shop's own connections use TLS."""

    kafka: str
    host: str
    port: int
    user: str
    password: str
    tls: bool = False


class Worker(HttpClient):
    """One worker process with its own folder and port."""

    def __init__(self, stack: Stack, name: str, command: list[str] | None = None, **env: str) -> None:
        self.folder = stack.folder / name
        super().__init__(find_free_port())
        self.env = {**stack.env, "LATELY_WEB_PORT": str(self.port), "LATELY_DATA_DIR": str(self.folder), **env}
        command = command or [PYTHON, "-m", "faust", "-A", "app", "worker", "-l", "info"]
        self.process = PythonProcess(name, command, stack.folder, env=self.env, cwd=ROOT)

    def start(self) -> Worker:
        self.process.start()
        return self

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()

    def wait_ready(self, within: float = 60) -> Worker:
        def ready() -> None:
            assert self.process.is_running, f"the worker ended:\n{self.process.tail()}"
            assert self.get("/readyz").status == 200

        eventually(ready, within)
        return self


class Stack:
    """One shop's database, its topics, and the processes a test starts; processes and database end with the test."""

    def __init__(self, servers: Servers, folder: Path, name: str | None = None, partitions: int = PARTITIONS) -> None:
        """A new stack, or (with `name`) one that another process of the same run has entered."""
        self.servers = servers
        self.folder = folder
        self.name = name or f"t{uuid.uuid4().hex[:10]}"
        self.processes: list[LocalProcess] = []
        self.env = {
            "LATELY_ID": self.name,
            "LATELY_TOPIC_PREFIX": f"{self.name}-",
            "LATELY_KAFKA": servers.kafka,
            "LATELY_MYSQL_HOST": servers.host,
            "LATELY_MYSQL_PORT": str(servers.port),
            "LATELY_MYSQL_USER": servers.user,
            "LATELY_MYSQL_PASSWORD": servers.password,
            "LATELY_MYSQL_DATABASE": self.name,
            "LATELY_DATA_DIR": str(folder / "tables"),
            "LATELY_PARTITIONS": str(partitions),
            "LATELY_SESSION_TIMEOUT_S": "6",
            # What a test sees is what the tables say.
            "LATELY_FALLBACK_PER_S": "0",
        }

    def __enter__(self) -> Stack:
        self.execute(f"CREATE DATABASE `{self.name}` DEFAULT CHARACTER SET utf8mb4", database=None)
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.kill()
        self._delete_topics()
        self.execute(f"DROP DATABASE `{self.name}`", database=None)
        self.execute(f"DROP DATABASE IF EXISTS `{self.name}_lately`", database=None)

    @property
    def partitions(self) -> int:
        """The number of partitions of each topic."""
        return int(self.env["LATELY_PARTITIONS"])

    def _delete_topics(self) -> None:
        """Delete the topics: each of some thousand partitions makes all requests of the broker slower.

        The topics of a broker that is down, or that demands a password, end with the broker.
        """
        host, _, port = self.servers.kafka.partition(":")
        with suppress(OSError, KafkaException), closing(socket.create_connection((host, int(port)), 1)):
            admin = AdminClient({"bootstrap.servers": self.servers.kafka, "log_level": 0})
            admin.list_topics(self.topic("orders"), timeout=2)
            names = [topic.name for topic in Topics(Settings.from_env(self.env)).all]
            wait([*admin.delete_topics(names, request_timeout=10).values()], 10)

    def connect(self, database: str | None = "") -> mysql.connector.MySQLConnection:
        """A connection of the shop's own, autocommit off."""
        return mysql.connector.connect(
            host=self.servers.host, port=self.servers.port, user=self.servers.user, password=self.servers.password,
            database=self.name if database == "" else database, charset="utf8mb4",
            collation="utf8mb4_general_ci", use_pure=True,
            # A connection without TLS takes a hundredth of the time.
            ssl_disabled=not self.servers.tls,
        )  # fmt: skip

    def execute(self, statement: str, values: tuple = (), database: str | None = "") -> None:
        """Run and commit one statement."""
        with closing(self.connect(database)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(statement, values)
            connection.commit()

    def select(self, statement: str, values: tuple = ()) -> list[tuple]:
        """The rows of one query."""
        with closing(self.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def kill_connections(self, user: str) -> None:
        """Let the server end all connections of a user, except this one."""
        with closing(self.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(
                "SELECT id FROM information_schema.processlist WHERE user = %s AND id <> CONNECTION_ID()", (user,)
            )
            for (number,) in cursor.fetchall():
                try:
                    cursor.execute(f"KILL {number}")
                except mysql.connector.Error as exc:
                    if exc.errno != errorcode.ER_NO_SUCH_THREAD:  # it has ended in the meantime
                        raise

    def create_orders(self) -> None:
        """The demo shop's table."""
        self.execute(TABLE)

    def create_numbered_orders(self) -> None:
        """The same with an AUTO_INCREMENT column, followed by its watermark."""
        self.env["LATELY_SOURCE_MODE"] = "watermark"
        self.create_orders()
        self.execute(
            "ALTER TABLE orders DROP PRIMARY KEY, ADD UNIQUE KEY purchase (order_id, product_name),"
            " ADD COLUMN id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY"
        )

    def insert(self, *rows: tuple) -> None:
        """Commit rows (order id, product, user, price, ordered at, payment method) in one transaction."""
        with closing(self.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.executemany(
                "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, payment_method)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                rows,
            )
            connection.commit()

    def lately(self, *words: str, **env: str) -> LocalProcess:
        """Run `lately …` to its end and return it."""
        process = PythonProcess(f"lately-{words[0]}-{len(self.processes)}", [PYTHON, "-m", "app", *words], self.folder,
                               env={**self.env, **env}, cwd=ROOT)  # fmt: skip
        self.processes.append(process)
        process.start()
        process.child.wait(60)
        return process

    def setup(self, since: str | None = "1d") -> None:
        """Set the source up, as `lately source setup` does; None: with all orders, however old."""
        setup(Settings.from_env(self.env), since, report=lambda line: None)

    def source(self, **env: str) -> LocalProcess:
        """Start `lately source`."""
        process = PythonProcess(f"source-{len(self.processes)}", [PYTHON, "-m", "app", "source"], self.folder,
                               env={**self.env, **env}, cwd=ROOT)  # fmt: skip
        self.processes.append(process)
        process.start()
        return process

    def worker(self, name: str = "worker", command: list[str] | None = None, **env: str) -> Worker:
        """A worker that is not started yet; the same name means the same folder."""
        worker = Worker(self, name, command, **env)
        self.processes.append(worker.process)
        return worker

    def wipe(self, worker: Worker) -> None:
        """Delete the worker's tables from its disk."""
        assert not worker.process.is_running
        shutil.rmtree(worker.folder)

    def topic(self, name: str) -> str:
        return f"{self.name}-{name}"

    def publish(self, topic: str, *records: tuple) -> None:
        """Write (key, value) records to a topic of this stack, as any client with the right partitioner would."""
        self.publish_to(self.topic(topic), *records)

    def publish_to(self, topic: str, *records: tuple) -> None:
        """The same for a topic by its full name."""
        producer = Producer({"bootstrap.servers": self.servers.kafka, "partitioner": "murmur2_random"})
        for key, value in records:
            producer.produce(topic, value, key)
        assert producer.flush(30) == 0

    def records(self, topic: str) -> list:
        """All records of a topic of this stack, partition by partition."""
        return self.records_of(self.topic(topic))

    def records_of(self, topic: str) -> list:
        """The same for a topic by its full name."""
        found = []
        with closing(self._reader()) as reader:
            for tp in self._partitions(reader, topic):
                low, high = reader.get_watermark_offsets(tp, timeout=10)
                reader.assign([TopicPartition(tp.topic, tp.partition, low)])
                while low < high and reader.position([tp])[0].offset < high:
                    found += [message for message in reader.consume(1000, 0.05) if not message.error()]
        return found

    def high_watermark(self, topic: str) -> int:
        """How many records were ever written to a topic of this stack; KeyError when it does not exist."""
        with closing(self._reader()) as reader:
            partitions = self._partitions(reader, self.topic(topic))
            return sum(reader.get_watermark_offsets(tp, timeout=10)[1] for tp in partitions)

    def committed(self, topic: str) -> int:
        """The sum of the offsets that the workers have committed in a topic of this stack."""
        with closing(self._reader()) as reader:
            offsets = reader.committed(self._partitions(reader, self.topic(topic)), 10)
            return sum(max(one.offset, 0) for one in offsets)

    def _reader(self) -> Consumer:
        # By default a fetch waits half a second at the end of a partition, and whatever is asked next waits behind it.
        return Consumer({
            "bootstrap.servers": self.servers.kafka, "group.id": self.name, "enable.auto.commit": False,
            "fetch.wait.max.ms": 10, "fetch.error.backoff.ms": 10,
        })  # fmt: skip

    def _partitions(self, reader: Consumer, topic: str) -> list[TopicPartition]:
        described = reader.list_topics(topic, timeout=10).topics[topic]
        if described.error is not None:
            raise KeyError(topic)
        return [TopicPartition(topic, number) for number in described.partitions]

    def events(self) -> list[dict]:
        """All events of the topic orders, partition by partition, each in the order in which it was published."""
        return [{**json.loads(one.value()), "partition": one.partition()} for one in self.records("orders")]

    def folded(self) -> dict[tuple, tuple]:
        """What the topic orders says of every purchase: of its events the newest counts, removed ones are gone."""
        newest: dict[tuple, dict] = {}
        for event in self.events():
            data = event["data"]
            known = newest.setdefault((str(data["order_id"]), data["product_name"]), event)
            if data["version"] > known["data"]["version"]:
                newest[str(data["order_id"]), data["product_name"]] = event
        fields = ("user_id", "price", "ordered_at", "payment_method", "category")
        return {
            name: tuple(event["data"].get(field) for field in fields)
            for name, event in newest.items()
            if event["type"] != "order.removed"
        }

    def purchases(self) -> dict[tuple, tuple]:
        """What SQL says of every purchase, in the shape of folded."""
        rows = self.select(
            "SELECT CAST(order_id AS CHAR), product_name, user_id, CAST(price AS CHAR),"
            " DATE_FORMAT(ordered_at, '%Y-%m-%dT%H:%i:%S.%fZ'), payment_method, category FROM orders"
        )
        return {(order, product): tuple(rest) for order, product, *rest in rows}

    def assert_topic_equals_sql(self) -> None:
        """No purchase is missing in the topic orders, none is too many there, and each is as SQL has it."""
        folded, purchases = self.folded(), self.purchases()
        missing, extra = purchases.keys() - folded.keys(), folded.keys() - purchases.keys()
        different = {name for name in purchases.keys() & folded.keys() if purchases[name] != folded[name]}
        wrong = missing | extra | different
        assert not wrong, (
            f"missing {len(missing)}: {sorted(missing)[:5]}, extra {len(extra)}: {sorted(extra)[:5]}, "
            f"different {len(different)}: {[(name, folded[name], purchases[name]) for name in sorted(different)[:5]]}"
        )

    def status(self) -> dict:
        """What `lately source status --json` prints."""
        return json.loads(msgspec.json.encode(read_status(Settings.from_env(self.env))))

    def watermark(self) -> int | None:
        """The watermark in Kafka: polling `status` keeps the server from refreshing its transactions."""
        state = asyncio.run(state_topic.read(Settings.from_env(self.env))).watermark
        return None if state is None else state.low

    def truth(self, user: str, limit: int = 20) -> list[tuple]:
        """What SQL says a user bought lately, in the shape of Worker.purchases."""
        rows = self.select(
            "SELECT order_id, product_name, CAST(price AS CHAR), ordered_at, payment_method FROM orders"
            " WHERE user_id = %s ORDER BY ordered_at DESC, order_id DESC, product_name DESC LIMIT %s",
            (user, limit),
        )
        return [(str(order), name, price, f"{at.isoformat()}Z", payment) for order, name, price, at, payment in rows]

    def truths(self, limit: int = 20) -> dict[str, list[tuple]]:
        """The same of every user, by one query; nothing for whom SQL does not know."""
        found: dict[str, list[tuple]] = defaultdict(list)
        for user, order, name, price, at, payment in self.select(
            "SELECT user_id, order_id, product_name, CAST(price AS CHAR), ordered_at, payment_method FROM orders"
            " ORDER BY ordered_at DESC, order_id DESC, product_name DESC"
        ):
            if len(found[user]) < limit:
                found[user].append((str(order), name, price, f"{at.isoformat()}Z", payment))
        return found

    def product_truth(self) -> dict[str, tuple[int, str]]:
        """What SQL says of all products: name -> (purchases, revenue)."""
        rows = self.select("SELECT product_name, COUNT(*), CAST(SUM(price) AS CHAR) FROM orders GROUP BY product_name")
        return {name: (count, revenue) for name, count, revenue in rows}

    def assert_equal_to_sql(self, worker: Worker, users: list[str]) -> None:
        """Every user's answer and every product's totals are what SQL says at this moment."""
        truths = self.truths()
        for user in users:
            said = worker.purchases(user)
            assert said == truths[user], f"{user}: {said} is not {truths[user]}"
        for product, totals in self.product_truth().items():
            assert worker.totals(product) == totals, product

    def outbox_is_empty(self) -> bool:
        return self.count_outbox() == 0

    def count_outbox(self) -> int:
        """How many changes are not published yet."""
        return self.select(f"SELECT COUNT(*) FROM {self.outbox()}")[0][0]

    def outbox(self, suffix: str = "") -> str:
        """The quoted name of the outbox, or of the table beside it with this suffix."""
        return quoted_outbox(self._settings_of_server(), suffix)

    def trigger(self, event: str) -> str:
        """The quoted name of the trigger for insert, update or delete."""
        return f"`{trigger_name(self._settings_of_server(), event)}`"

    def _settings_of_server(self) -> Settings:
        """The settings with the address of the server itself: the processes of a test may have that of a proxy."""
        address = {"LATELY_MYSQL_HOST": self.servers.host, "LATELY_MYSQL_PORT": str(self.servers.port)}
        return with_outbox(Settings.from_env({**self.env, **address}))


def remove_settings() -> None:
    """Forget the LATELY_* variables of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(("LATELY_", "F_", "SHOP_"))]:
        del os.environ[name]
