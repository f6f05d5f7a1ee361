"""What secures the ways to Kafka and MySQL: what does not go together is refused, and no client
goes past it.
"""

from __future__ import annotations

import ast
import logging
import ssl
from pathlib import Path

import pytest
from aiokafka.errors import SaslAuthenticationFailed
from cryptography.hazmat.primitives import serialization

from app import tls
from app.errors import BadSetting
from app.kafka.client import client_options
from app.settings import Settings
from tests.kit.secured import Authority
from tests.kit.stack import ROOT

LOGIN = {
    "LATELY_KAFKA_SECURITY": "SASL_SSL",
    "LATELY_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "LATELY_KAFKA_SASL_USER": "lately",
    "LATELY_KAFKA_SASL_PASSWORD": "hunter2",
}
SERVERS = ({"LATELY_KAFKA_SECURITY": "SSL"}, "LATELY_KAFKA"), ({"LATELY_MYSQL_TLS": "VERIFY_CA"}, "LATELY_MYSQL")
both = pytest.mark.parametrize(("secured", "prefix"), SERVERS, ids=["kafka", "mysql"])


def refusal(variables: dict[str, str]) -> str:
    with pytest.raises(BadSetting) as caught:
        Settings.from_env(variables)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"LATELY_KAFKA_SECURITY": "TLS"},
            "LATELY_KAFKA_SECURITY: 'TLS' is not one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL",
        ),
        (
            {**LOGIN, "LATELY_KAFKA_SASL_MECHANISM": "GSSAPI"},
            "LATELY_KAFKA_SASL_MECHANISM: 'GSSAPI' is not one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
        ),
        *(
            (
                {key: text for key, text in LOGIN.items() if key != name},
                f"{name} is not set, and LATELY_KAFKA_SECURITY=SASL_SSL needs it: set it, too",
            )
            for name in LOGIN
            if "SASL" in name
        ),
        *(
            (
                {name: LOGIN[name]},
                f"{name} is for SASL, and LATELY_KAFKA_SECURITY=PLAINTEXT is without: "
                "set it to SASL_SSL or SASL_PLAINTEXT",
            )
            for name in LOGIN
            if "SASL" in name
        ),
        *(
            (
                {f"LATELY_KAFKA_{name}": "x.pem"},
                f"LATELY_KAFKA_{name} is for TLS, and LATELY_KAFKA_SECURITY=PLAINTEXT is without: "
                "set it to SSL or SASL_SSL",
            )
            for name in ("CA", "CERT", "KEY")
        ),
        *(
            (
                {"LATELY_MYSQL_TLS": mode, "LATELY_MYSQL_CA": "x.pem"},
                f"LATELY_MYSQL_CA is set, and LATELY_MYSQL_TLS={mode} verifies no certificate: "
                "set it to VERIFY_IDENTITY or VERIFY_CA",
            )
            for mode in ("DISABLED", "PREFERRED", "REQUIRED")
        ),
        *(
            (
                {"LATELY_MYSQL_TLS": mode, f"LATELY_MYSQL_{name}": "x.pem"},
                f"LATELY_MYSQL_{name} is for TLS, and LATELY_MYSQL_TLS={mode} can be without: "
                "set it to VERIFY_IDENTITY or REQUIRED",
            )
            for mode in ("DISABLED", "PREFERRED")
            for name in ("CERT", "KEY")
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_cause_and_the_next_step(variables, message):
    assert refusal(variables) == message


@both
@pytest.mark.parametrize("name", ["CA", "CERT", "KEY"])
def test_a_file_that_is_missing_is_named(secured, prefix, name, pems, tmp_path):
    paths = {f"{prefix}_{kind.upper()}": path for kind, path in pems.items()}
    missing = tmp_path / "x.pem"

    message = refusal({**secured, **paths, f"{prefix}_{name}": str(missing)})

    assert message == f"{prefix}_{name}: '{missing}' cannot be read (No such file or directory): it must be a PEM file"


@both
@pytest.mark.parametrize(("present", "missing"), [("CERT", "KEY"), ("KEY", "CERT")])
def test_a_certificate_needs_its_key(secured, prefix, present, missing, pems):
    assert refusal({**secured, f"{prefix}_{present}": pems[present.lower()]}) == (
        f"{prefix}_{present} is set without {prefix}_{missing}: set both, or neither"
    )


@both
def test_a_key_of_another_certificate_is_refused(secured, prefix, pems, tmp_path):
    other = Authority(tmp_path).issue("other").key
    message = refusal({**secured, f"{prefix}_CERT": pems["cert"], f"{prefix}_KEY": str(other)})
    assert message.startswith(f"{prefix}_KEY: '{other}' is not the key of '{pems['cert']}': ")


@both
@pytest.mark.parametrize("name", ["CA", "CERT", "KEY"])
@pytest.mark.parametrize("content", ["", "no certificate", "\x00\xff"])
def test_a_file_that_is_no_pem_is_refused(secured, prefix, name, content, pems, tmp_path):
    (tmp_path / "x.pem").write_text(content)
    paths = {f"{prefix}_{kind.upper()}": path for kind, path in pems.items()}

    message = refusal({**secured, **paths, f"{prefix}_{name}": str(tmp_path / "x.pem")})

    assert str(tmp_path / "x.pem") in message
    assert f"{prefix}_{name}" in message
    assert "PEM" in message


@both
def test_a_key_with_a_password_is_refused_instead_of_asking_for_it(secured, prefix, pems, tmp_path):
    key = serialization.load_pem_private_key(Path(pems["key"]).read_bytes(), None)
    locked = tmp_path / "locked.pem"
    how = serialization.BestAvailableEncryption(b"hunter2")
    form = serialization.PrivateFormat.PKCS8
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, how))

    message = refusal({**secured, f"{prefix}_CERT": pems["cert"], f"{prefix}_KEY": str(locked)})

    assert message.startswith(f"{prefix}_KEY: '{locked}' has a password: ")


def test_an_authority_that_is_named_is_the_only_one_that_is_trusted(pems):
    for secured, prefix in SERVERS:
        settings = Settings.from_env({**secured, f"{prefix}_CA": pems["ca"]})
        is_mysql = prefix == "LATELY_MYSQL"
        context = tls.mysql_context(settings) if is_mysql else tls.kafka_options(settings)["ssl_context"]
        assert len(context.get_ca_certs()) == 1
        assert context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("mode", "verifies", "named"),
    [
        ("PREFERRED", ssl.CERT_NONE, False),
        ("REQUIRED", ssl.CERT_NONE, False),
        ("VERIFY_CA", ssl.CERT_REQUIRED, False),
        ("VERIFY_IDENTITY", ssl.CERT_REQUIRED, True),
    ],
)
def test_the_modes_of_mysql_mean_what_they_mean_to_its_own_clients(mode, verifies, named):
    context = tls.mysql_context(Settings(mysql_tls=mode))
    assert (context.verify_mode, context.check_hostname) == (verifies, named)


@pytest.mark.parametrize("mode", [mode for mode in tls.MODES if mode != "DISABLED"])
def test_all_connections_to_mysql_share_one_context(mode):
    assert tls.mysql_context(Settings(mysql_tls=mode)) is tls.mysql_context(Settings(mysql_tls=mode))


@pytest.mark.parametrize("mode", ["PREFERRED", "REQUIRED"])
def test_authorities_that_verify_nothing_are_not_loaded(mode):
    assert tls.mysql_context(Settings(mysql_tls=mode)).cert_store_stats()["x509"] == 0


def test_kafka_is_always_verified_by_name():
    context = tls.kafka_options(Settings(kafka_security="SSL"))["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("protocol", tls.PROTOCOLS)
def test_faust_and_the_engine_are_told_what_all_other_clients_are(protocol):
    from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

    from app import core

    sasl = {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_user": "lately", "kafka_sasl_password": "hunter2"}
    settings = Settings(kafka_security=protocol, **(sasl if protocol.startswith("SASL") else {}))

    options = credentials_to_aiokafka_auth(core._credentials(settings))

    assert {name: value for name, value in options.items() if value is not None} == tls.kafka_options(settings)
    assert "hunter2" not in repr(core._credentials(settings))


def test_the_log_of_what_is_sent_to_kafka_leaves_the_login_out(caplog):
    from aiokafka.protocol.admin import ApiVersionRequest_v0, SaslAuthenticateRequest_v1

    log = logging.getLogger("aiokafka.conn")
    assert client_options(Settings())["security_protocol"] == "PLAINTEXT"
    with caplog.at_level(logging.DEBUG, "aiokafka.conn"):
        log.debug("Request to %s:%d %d: %s", "kafka", 9092, 1, SaslAuthenticateRequest_v1(b"\0lately\0hunter2"))
        log.debug("Request to %s:%d %d: %s", "kafka", 9092, 2, ApiVersionRequest_v0())

    assert [record.args[2] for record in caplog.records] == [2]


def test_a_login_that_is_refused_for_long_is_said_now_and_then_with_what_to_do(caplog):
    log = logging.getLogger("aiokafka")
    for exc in [SaslAuthenticationFailed("bad"), SaslAuthenticationFailed("bad"), OSError("away"), OSError("away")]:
        log.error("Unable connect to node with id %s: %s", 1, exc)

    first, *further = [record.getMessage() for record in caplog.records]
    assert "bad: set LATELY_KAFKA_SASL_PASSWORD" in first
    assert further == ["Unable connect to node with id 1: away"] * 2


#: Functions and classes that create connections, and the modules that may call them directly.
KAFKA_MAKERS = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient", "AIOKafkaClient", "create_conn"}
MYSQL_MAKERS = {"connect", "MySQLConnection", "MySQLConnectionPool", "CMySQLConnection"}
KAFKA = {"app/kafka/client.py", "app/tls.py", "chunks/client.py"}
MYSQL = {"source/mysql.py", "source/secure_connection.py"}
OTHER_CLIENTS = {"confluent_kafka", "kafka", "pymysql", "MySQLdb", "aiomysql"}
SECURITY_OPTIONS = {
    "bootstrap_servers",
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
}


def find_violations(path: str, text: str) -> tuple[int, list[str]]:
    """Return the number of Kafka clients that a module creates, and its insecure or direct connections."""
    clients, violations = 0, []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            if {module.split(".")[0] for module in modules} & OTHER_CLIENTS:
                violations.append(f"{path}:{node.lineno} uses another client")
            if modules[0].startswith("mysql.") and MYSQL_MAKERS & set(names) and path not in MYSQL:
                violations.append(f"{path}:{node.lineno} makes connections by itself")
        elif isinstance(node, ast.Attribute) and path not in MYSQL:
            if node.attr in MYSQL_MAKERS and ast.unparse(node.value).startswith("mysql."):
                violations.append(f"{path}:{node.lineno} makes connections by itself")
        elif isinstance(node, ast.Call) and path not in KAFKA:
            name = ast.unparse(node.func).rpartition(".")[2]
            expanded = {
                ast.unparse(keyword.value).partition("(")[0] for keyword in node.keywords if keyword.arg is None
            }
            if name in KAFKA_MAKERS:
                clients += 1
                if not expanded & {"client", "client_options"}:
                    violations.append(f"{path}:{node.lineno} makes {name} without **client_options(...)")
                if SECURITY_OPTIONS & {keyword.arg for keyword in node.keywords}:
                    violations.append(f"{path}:{node.lineno} says by itself where Kafka is or how it is secured")
    return clients, violations


def test_no_module_makes_a_client_past_the_one_place_that_secures_it():
    clients, violations = 0, []
    for folder in ("app", "agents", "chunks", "commands", "domain", "source", "tables", "web"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            module_clients, module_violations = find_violations(str(path.relative_to(ROOT)), path.read_text())
            clients += module_clients
            violations += module_violations
    assert violations == []
    assert clients >= 11, "the search finds no clients any more"


@pytest.mark.parametrize(
    "text",
    [
        "AIOKafkaConsumer(bootstrap_servers=settings.kafka_servers)",
        "aiokafka.AIOKafkaProducer(**common)",
        "AIOKafkaAdminClient(bootstrap_servers='x', **client_options(settings))",
        "from confluent_kafka import Consumer",
        "import confluent_kafka.admin",
        "AIOKafkaConsumer(**client_options(settings), security_protocol='PLAINTEXT')",
        "mysql.connector.connect(host='x')",
        "from mysql.connector import connect",
        "from mysql.connector.connection import MySQLConnection",
    ],
)
def test_a_client_past_that_place_would_be_found(text):
    assert find_violations("web/x.py", text)[1]
