"""A broker and a database that let nobody in without TLS, and an authority that is gone with the test's folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import trustme
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography.hazmat.primitives import serialization

from local.artifacts import MARIADB, Artifacts
from local.database import start_database
from local.database_server import DatabaseServer
from local.kafka import Kafka, start_kafka
from local.process import find_free_port

USER = "lately"
#: Kafka and MySQL each have their own.
KAFKA_PASSWORD, MYSQL_PASSWORD = "kafka-hunter2-€", "mysql-hunter3-€"

LISTENERS = """
listeners=BROKER://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}},LOGIN://127.0.0.1:{login},MUTUAL://127.0.0.1:{mutual}
advertised.listeners=BROKER://127.0.0.1:{{port}},LOGIN://127.0.0.1:{login},MUTUAL://127.0.0.1:{mutual}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL,MUTUAL:SSL
ssl.keystore.type=PEM
ssl.keystore.location={server}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.mutual.ssl.client.auth=required
listener.name.login.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.login.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.login.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
    user_{user}="{password}";
"""


class Pair(NamedTuple):
    """A certificate and its private key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; `ca` is the file that makes others trust them."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder, self._authority = folder, trustme.CA(key_type=trustme.KeyType.RSA)
        self.ca = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str, *identities: str) -> Pair:
        """A certificate for these names and addresses."""
        issued = self._authority.issue_cert(*(identities or (name,)), common_name=name, key_type=trustme.KeyType.RSA)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.cert.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        # Kafka reads no other form.
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair


class SecuredKafka(NamedTuple):
    """A broker: `login` wants a user and a password, `mutual` a certificate, and the broker's own address nothing."""

    broker: Kafka
    login: str
    mutual: str

    def set_password(self, password: str) -> None:
        """Let USER log in with it by SCRAM."""
        admin = AdminClient({"bootstrap.servers": self.broker.address, "log_level": 0})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            info = ScramCredentialInfo(mechanism, 4096)
            changed = admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(USER, info, password=password.encode())]
            )
            changed[USER].result(10)


def start_secured_kafka(artifacts: Artifacts, folder: Path, authority: Authority) -> SecuredKafka:
    """Start a broker that USER can log in to."""
    server = authority.issue("kafka-server", "127.0.0.1")
    both = folder / "kafka-server.both"
    both.write_bytes(server.key.read_bytes() + server.cert.read_bytes())
    login, mutual = find_free_port(), find_free_port()
    more = LISTENERS.format(
        login=login,
        mutual=mutual,
        server=both,
        ca=authority.ca,
        user=USER,
        password=KAFKA_PASSWORD.encode("ascii", "backslashreplace").decode(),
    )
    secured = SecuredKafka(
        start_kafka(artifacts, folder, extra_settings=more), f"127.0.0.1:{login}", f"127.0.0.1:{mutual}"
    )
    secured.set_password(KAFKA_PASSWORD)
    return secured


def start_secured_database(artifacts: Artifacts, folder: Path, authority: Authority) -> DatabaseServer:
    """Start a database with TLS; it does not demand it yet."""
    server = authority.issue("mysql-server", "127.0.0.1")
    enable = ("--ssl",) if artifacts.product == MARIADB else ()  # MySQL has TLS by default, and not this option
    return start_database(
        artifacts, folder, None, *enable, f"--ssl-ca={authority.ca}", f"--ssl-cert={server.cert}",
        f"--ssl-key={server.key}",
    )  # fmt: skip
