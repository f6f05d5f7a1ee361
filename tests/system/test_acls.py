"""The ACLs of docs/security.md are sufficient: workers, sources and commands run with exactly these."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from app.settings import Settings
from app.topics import Topics
from local.artifacts import Artifacts
from local.kafka import start_kafka
from local.process import find_free_port
from tests.kit.commands import LATELY_WORKER
from tests.kit.eventually import eventually
from tests.kit.stack import ROOT, Servers, Stack

PRINCIPALS = ("workers", "sources", "commands")
PASSWORD = "acl-hunter"
#: The broker's own listener is open, and may do everything.
LISTENER = """
listeners=BROKER://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}},LOGIN://127.0.0.1:{login}
advertised.listeners=BROKER://127.0.0.1:{{port}},LOGIN://127.0.0.1:{login}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT
listener.name.login.sasl.enabled.mechanisms=PLAIN
listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


def read_acls(app_id: str, prefix: str) -> Iterator[AclBinding]:
    """The rows of the table, for an app."""
    text = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (Topic|Group|TransactionalId) `([^`]+)` \| ([\w, ]+) \|", text, re.MULTILINE)
    assert {principal for principal, *_ in rows} == {*PRINCIPALS}
    types = {"Topic": "TOPIC", "Group": "GROUP", "TransactionalId": "TRANSACTIONAL_ID"}
    for principal, kind, name, operations in rows:
        pattern = ResourcePatternType.PREFIXED if name.endswith("…") else ResourcePatternType.LITERAL
        full = name.removesuffix("…").replace("<ID>", app_id).replace("<P>", prefix)
        for operation in operations.split(", "):
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()
            yield AclBinding(
                ResourceType[types[kind]], full, pattern, f"User:{principal}", "*", AclOperation[words],
                AclPermissionType.ALLOW,
            )  # fmt: skip


@pytest.fixture
def guarded(artifacts: Artifacts, database: dict, tmp_path) -> Iterator[Stack]:
    """A stack on a broker that allows what the table allows; `env` is that of commands."""
    login = find_free_port()
    users = " ".join(f'user_{name}="{PASSWORD}"' for name in PRINCIPALS)
    settings = LISTENER.format(login=login, users=users)
    with (
        start_kafka(artifacts, tmp_path / "broker", extra_settings=settings) as broker,
        Stack(Servers(broker.address, **database), tmp_path) as stack,
    ):
        stack.env |= {
            "LATELY_KAFKA": f"127.0.0.1:{login}", "LATELY_KAFKA_SECURITY": "SASL_PLAINTEXT",
            "LATELY_KAFKA_SASL_MECHANISM": "PLAIN", "LATELY_KAFKA_SASL_PASSWORD": PASSWORD,
            "LATELY_TOPIC_PREFIX": "shop.", "LATELY_SIGNING_KEY": "k" * 32, **as_principal("commands"),
        }  # fmt: skip
        admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
        for created in admin.create_acls(list(read_acls(stack.name, "shop."))).values():
            created.result(10)
        yield stack


def as_principal(name: str) -> dict[str, str]:
    return {"LATELY_KAFKA_SASL_USER": name}


@pytest.mark.cost(30)
def test_an_order_and_a_dead_letter_go_all_the_way_with_the_documented_acls(guarded: Stack):
    stack = guarded
    stack.create_orders()
    stack.setup()
    source = stack.source(**as_principal("sources"))
    worker = stack.worker("worker", LATELY_WORKER, **as_principal("workers")).start().wait_ready()
    stack.env["LATELY_WEB_PORT"] = str(worker.port)
    stack.insert(("o-1", "tea", "ann", "19.90", "2026-01-31 08:00:00", "card"))

    def shows() -> None:
        assert worker.purchases("ann") == stack.truth("ann") != []
        assert worker.totals("tea") == (1, "19.90")

    eventually(shows, 30)
    stack.publish_to(Topics(Settings.from_env(stack.env)).orders.name, (b"ann", b"no event"))
    address = f"http://127.0.0.1:{worker.port}"

    def has_letter() -> None:
        listed = stack.lately("dlq", "list", "--json")
        assert listed.child.returncode == 0, listed.tail()
        assert "malformed-json" in listed.tail()

    eventually(has_letter, 30)
    for words in (
        ["verify", "--worker", address], ["dlq", "drop", "--all"], ["trace", "o-1", "--worker", address],
        ["replay", "--dry-run"], ["source", "status"], ["source", "sign"], ["tables", "dump", "dump"],
        ["users", "erase", "eve", "--worker", address], ["doctor"],
    ):  # fmt: skip
        done = stack.lately(*words)
        assert "uthorization" not in done.tail(1_000), (words, done.tail())
        assert done.child.returncode in (0, 1), (words, done.tail())
    for process in (source, worker.process):
        assert process.is_running
        assert "uthorization" not in process.log.read_text(), process.tail()

    for principal, topic in (("workers", "shop.orders"), ("sources", f"{stack.name}-by_user-changelog")):
        assert "authorization failed" in refusal_of(stack, principal, topic)


def refusal_of(stack: Stack, principal: str, topic: str) -> str:
    """What the broker answers to a record of a principal; "" if it accepts it."""
    outcomes: list[str] = []
    producer = Producer({
        "bootstrap.servers": stack.env["LATELY_KAFKA"], "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN", "sasl.username": principal, "sasl.password": PASSWORD, "log_level": 0,
    })  # fmt: skip
    producer.produce(topic, b"x", on_delivery=lambda error, _: outcomes.append(error.str() if error else ""))
    assert producer.flush(30) == 0
    return outcomes[0]
