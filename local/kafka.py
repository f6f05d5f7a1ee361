"""One Kafka broker that is its own controller, as a local process."""

import base64
import socket
import uuid
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from local.artifacts import Artifacts
from local.process import LocalProcess, LocalServer, ServerFailed, demand_port, free_port, run, wait_ready

LOG4J = Path(__file__).with_name("log4j2.xml")
PROBE = "ready-probe"
SECONDS_TO_START = 60

SETTINGS = """\
process.roles=broker,controller
node.id=1
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=BROKER://127.0.0.1:{port}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
# Static voters: the addresses are read at each start, so the ports may change while the data stays.
controller.quorum.voters=1@127.0.0.1:{controller}
# Relative to where the process runs: a folder's name may hold a comma, which would separate two folders.
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

# After a kill -9 the controller takes the broker back only when its old session (else 9 s) is over.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=250

group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000

# The default buffer (128 MB) would take a quarter of the heap.
log.cleaner.dedupe.buffer.size=16777216
"""


class Kafka(LocalServer):
    """A broker with its data in `<folder>/kafka`; `address` stays the same over stop and start."""

    def __init__(self, artifacts: Artifacts, folder: Path, port: int, more: str = "", lasting: bool = False) -> None:
        self.more = more
        self.lasting = lasting
        self.artifacts = artifacts
        self.folder = folder.absolute()
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.settings = self.folder / "kafka.properties"
        self.process = LocalProcess("kafka", self.java("kafka.Kafka", self.settings.name), self.folder, cwd=self.folder)

    def start(self) -> None:
        """Start the broker on its port and data; returns when a topic can be created.

        Raises ServerFailed.
        """
        self.process.demand_stopped()
        demand_port(self.port)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings.write_text((SETTINGS + self.more).format(port=self.port, controller=free_port()))
        self.format()
        self.process.start()
        try:
            self.wait_ready()
        except BaseException:
            self.process.kill()
            raise

    def java(self, main: str, *arguments: str) -> list[str]:
        """Return the command that runs a class of Kafka."""
        return [
            str(self.artifacts.java),
            "-Xms256m",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            # Half the processor time until it is ready, and none for code that is compiled a second time.
            *(() if self.lasting else ("-XX:TieredStopAtLevel=1",)),
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={LOG4J.as_uri()}",
            "-cp",
            f"{self.artifacts.jars}/*",
            main,
            *arguments,
        ]

    def format(self) -> None:
        """Give an empty data folder its cluster id; raises ServerFailed."""
        if (self.folder / "kafka" / "meta.properties").exists():
            return  # the tool writes this file last, and whole
        command = self.java(
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
            "--cluster-id",
            new_cluster_id(),
            "--config",
            self.settings.name,
        )
        try:
            run(command, self.folder)
        except ServerFailed as error:
            raise ServerFailed(
                f"Kafka cannot prepare {self.folder / 'kafka'} (remove it to begin anew): {error}"
            ) from None

    def wait_ready(self) -> None:
        """Return when the broker answers and topics can be created; raises ServerFailed."""
        wait_ready(self.process, self.listens, SECONDS_TO_START, "open port")
        # The client's own pauses and complaints are off: not yet answering is the normal case here.
        admin = AdminClient(
            {
                "bootstrap.servers": self.address,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
                "log_level": 0,
                "socket.timeout.ms": 5000,
            }
        )
        wait_ready(self.process, lambda: creates_topic(admin), SECONDS_TO_START, "topic that can be created")
        wait_ready(self.process, lambda: forgot_topic(admin), SECONDS_TO_START, "topic that can be deleted")

    def listens(self) -> bool:
        """Tell whether the broker's port is open."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True


def start_kafka(
    artifacts: Artifacts, folder: Path, port: int | None = None, more: str = "", lasting: bool = False
) -> Kafka:
    """Start a broker with its data in `<folder>/kafka`, and return it ready.

    Args: `port` is taken if it is free, else (or without it) another one; ask `.address`.
    `more` is put behind the broker's settings, of which the last counts; {port} and {controller} in it are our ports.
    A broker that is `lasting` starts slowly and is fast later, as what is measured has to be.
    Raises ServerFailed.
    """
    kafka = Kafka(artifacts, folder, free_port(port), more, lasting)
    kafka.start()
    return kafka


def new_cluster_id() -> str:
    """Return a random id in Kafka's spelling."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):  # would be read as an option of the tool
            return text


def creates_topic(admin: AdminClient) -> bool:
    """Tell whether the broker creates a topic now."""
    admin.list_topics(timeout=1)
    try:
        admin.create_topics([NewTopic(PROBE, 1, 1)], request_timeout=2)[PROBE].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        # A run that was killed here left it: only creating it anew proves something.
        admin.delete_topics([PROBE], request_timeout=2)[PROBE].result()
        return False
    return True


def forgot_topic(admin: AdminClient) -> bool:
    """Delete the probe topic, and tell whether it is out of everybody's sight."""
    if PROBE not in admin.list_topics(timeout=1).topics:
        return True
    admin.delete_topics([PROBE], request_timeout=2)[PROBE].result()
    return False
