"""A Kafka broker that is also the controller, as a local process."""

import base64
import socket
import uuid
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from local.artifacts import Artifacts
from local.process import (
    LocalProcess,
    LocalServer,
    ServerFailed,
    find_free_port,
    require_free_port,
    run_command,
    wait_ready,
)

LOG4J = Path(__file__).with_name("log4j2.xml")
PROBE = "ready-probe"
START_TIMEOUT_S = 60

SETTINGS = """\
process.roles=broker,controller
node.id=1
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=BROKER://127.0.0.1:{port}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
# Static voters: the addresses are read at each start, so that the ports may change between starts.
controller.quorum.voters=1@127.0.0.1:{controller}
# Relative to the working directory: an absolute path could contain a comma, which separates folders.
log.dirs=kafka

auto.create.topics.enable=false
num.partitions=4
default.replication.factor=1
offsets.topic.num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# After a kill -9 the controller accepts the broker only when its old session has expired (default: 9 s).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=250

group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000

# The default buffer (128 MB) would take a quarter of the heap.
log.cleaner.dedupe.buffer.size=16777216
"""


class Kafka(LocalServer):
    """A broker with its data in `<folder>/kafka`; it has the same `address` after each start."""

    def __init__(
        self, artifacts: Artifacts, folder: Path, port: int, extra_settings: str = "", full_jit: bool = False
    ) -> None:
        self.extra_settings = extra_settings
        self.full_jit = full_jit
        self.artifacts = artifacts
        self.folder = folder.absolute()
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.settings = self.folder / "kafka.properties"
        self.process = LocalProcess(
            "kafka", self.java_command("kafka.Kafka", self.settings.name), self.folder, cwd=self.folder
        )

    def start(self) -> None:
        """Start the broker, and return when a topic can be created. Raises ServerFailed."""
        self.process.require_stopped()
        require_free_port(self.port)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings.write_text((SETTINGS + self.extra_settings).format(port=self.port, controller=find_free_port()))
        self.format_data_folder()
        self.process.start()
        try:
            self.wait_ready()
        except BaseException:
            self.process.kill()
            raise

    def java_command(self, main: str, *arguments: str) -> list[str]:
        """Return the command that runs a Java class of Kafka."""
        return [
            str(self.artifacts.java),
            "-Xms256m",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            # Without the second compiler the broker needs half the processor time until it is
            # ready.
            *(() if self.full_jit else ("-XX:TieredStopAtLevel=1",)),
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={LOG4J.as_uri()}",
            "-cp",
            f"{self.artifacts.jars}/*",
            main,
            *arguments,
        ]

    def format_data_folder(self) -> None:
        """Write the cluster id into an empty data folder. Raises ServerFailed."""
        if (self.folder / "kafka" / "meta.properties").exists():
            return  # the tool writes this file last and atomically
        command = self.java_command(
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
            "--cluster-id",
            generate_cluster_id(),
            "--config",
            self.settings.name,
        )
        try:
            run_command(command, self.folder)
        except ServerFailed as error:
            raise ServerFailed(
                f"Kafka cannot prepare {self.folder / 'kafka'} (remove it to start with empty topics): {error}"
            ) from None

    def wait_ready(self) -> None:
        """Return when the broker is reachable and topics can be created. Raises ServerFailed."""
        wait_ready(self.process, self.is_listening, START_TIMEOUT_S, "open port")
        # Short pauses and no log: an unreachable broker is normal here.
        admin = AdminClient(
            {
                "bootstrap.servers": self.address,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
                "log_level": 0,
                "socket.timeout.ms": 5000,
            }
        )
        wait_ready(self.process, lambda: try_create_probe_topic(admin), START_TIMEOUT_S, "topic that can be created")
        wait_ready(self.process, lambda: try_delete_probe_topic(admin), START_TIMEOUT_S, "topic that can be deleted")

    def is_listening(self) -> bool:
        """Return True if the port of the broker is open."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True


def start_kafka(
    artifacts: Artifacts, folder: Path, port: int | None = None, extra_settings: str = "", full_jit: bool = False
) -> Kafka:
    """Start a broker with its data in `<folder>/kafka`, and return when it is ready.

    `port` is used if it is free; `.address` contains the actual port. `extra_settings` override the
    settings of the broker; {port} and {controller} in them are replaced by the ports. With
    `full_jit` the broker starts more slowly and is faster later, which measurements need. Raises
    ServerFailed.
    """
    kafka = Kafka(artifacts, folder, find_free_port(port), extra_settings, full_jit)
    kafka.start()
    return kafka


def generate_cluster_id() -> str:
    """Return a random cluster id as Kafka formats it."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):  # the tool would parse it as an option
            return text


def try_create_probe_topic(admin: AdminClient) -> bool:
    """Create the probe topic; return False if it existed already."""
    admin.list_topics(timeout=1)
    try:
        admin.create_topics([NewTopic(PROBE, 1, 1)], request_timeout=2)[PROBE].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        # A killed run created it: only a new topic proves that the broker is ready.
        admin.delete_topics([PROBE], request_timeout=2)[PROBE].result()
        return False
    return True


def try_delete_probe_topic(admin: AdminClient) -> bool:
    """Delete the probe topic; return True if the broker does not list it anymore."""
    if PROBE not in admin.list_topics(timeout=1).topics:
        return True
    admin.delete_topics([PROBE], request_timeout=2)[PROBE].result()
    return False
