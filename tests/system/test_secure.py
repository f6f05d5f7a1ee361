"""Servers that let nobody in without TLS: Lately gets in, says why where it does not, and tells no secret."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

import mysql.connector
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from app.errors import Refused
from app.kafka.admin import missing_topics
from app.kafka.client import diagnose
from app.settings import Settings
from domain.errors import LatelyError
from local.database_server import DatabaseServer
from local.process import LocalProcess, find_free_port
from source.mysql import connect
from tests.kit.eventually import eventually
from tests.kit.secured import (
    KAFKA_PASSWORD,
    MYSQL_PASSWORD,
    USER,
    Authority,
    Pair,
    SecuredKafka,
    start_secured_database,
    start_secured_kafka,
)
from tests.kit.stack import PYTHON, ROOT, Servers, Stack, Worker

LATELY = [PYTHON, "-m", "app"]
WORKER = [PYTHON, "-m", "faust", "-A", "app", "worker", "-l", "debug"]
SOURCE = [*LATELY, "source"]


class Fort(NamedTuple):
    """A shop behind servers that demand TLS, and what opens them."""

    stack: Stack
    kafka: SecuredKafka
    database: DatabaseServer
    authority: Authority
    stranger: Authority
    mine: Pair
    other: Pair

    def files(self) -> dict[tuple[str, str], str]:
        """(setting, a word for it in a test) -> the file that is meant."""
        words = {
            "ca": {"ours": self.authority.ca, "stranger": self.stranger.ca},
            "cert": {"mine": self.mine.cert, "other": self.other.cert},
            "key": {"mine": self.mine.key, "other": self.other.key},
        }
        return {
            (f"{server}_{what}", word): str(path)
            for server in ("kafka", "mysql")
            for what, some in words.items()
            for word, path in some.items()
        }


@pytest.fixture(scope="module")
def fort(artifacts, database_artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fort]:
    """One for all tests of this file."""
    folder = tmp_path_factory.mktemp("fort")
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    kafka = start_secured_kafka(artifacts, folder, authority)
    with kafka.broker, start_secured_database(database_artifacts, folder, authority) as database:
        servers = Servers(
            kafka.broker.address, database.host, database.port, database.user, database.password, tls=True
        )
        with Stack(servers, folder) as stack:
            for statement in (
                f"CREATE USER {USER} IDENTIFIED BY '{MYSQL_PASSWORD}' REQUIRE SSL",
                "CREATE USER mutual REQUIRE X509",
                f"GRANT ALL ON *.* TO {USER}, mutual",
                "SET GLOBAL require_secure_transport = ON",
            ):
                stack.execute(statement)
            files = {"kafka": folder / "kafka.password", "mysql": folder / "mysql.password"}
            files["kafka"].write_text(f"{KAFKA_PASSWORD}\n")
            files["mysql"].write_text(f"{MYSQL_PASSWORD}\n")
            del stack.env["LATELY_MYSQL_PASSWORD"]
            stack.env |= {
                "LATELY_KAFKA": kafka.login,
                "LATELY_KAFKA_SECURITY": "SASL_SSL",
                "LATELY_KAFKA_CA": str(authority.ca),
                "LATELY_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
                "LATELY_KAFKA_SASL_USER": USER,
                "LATELY_KAFKA_SASL_PASSWORD_FILE": str(files["kafka"]),
                "LATELY_MYSQL_TLS": "VERIFY_IDENTITY",
                "LATELY_MYSQL_CA": str(authority.ca),
                "LATELY_MYSQL_USER": USER,
                "LATELY_MYSQL_PASSWORD_FILE": str(files["mysql"]),
            }
            stack.create_orders()
            stack.setup()
            yield Fort(stack, kafka, database, authority, stranger, authority.issue("mine"), stranger.issue("other"))


def ending(fort: Fort, command: list[str], **env: str) -> tuple[int, str]:
    """Exit code and output of a command that ends by itself."""
    stack = fort.stack
    process = LocalProcess(f"run-{len(stack.processes)}", command, stack.folder, cwd=ROOT,
                           env={**stack.env, "LATELY_WEB_PORT": str(find_free_port()), **env})  # fmt: skip
    stack.processes.append(process)
    process.start()
    return process.child.wait(60), process.tail(1_000)


#: aiokafka leaves connections that it could not open to the garbage collector.
unopened = pytest.mark.filterwarnings("ignore::ResourceWarning")


def refusal(do: Callable[[], object]) -> LatelyError:
    with pytest.raises(LatelyError) as caught:
        do()
    assert "hunter" not in str(caught.value)
    gc.collect()
    return caught.value


def assert_no_secret_was_told(fort: Fort) -> None:
    """In no log of ours; what is not ASCII a log may show as bytes, so only the rest is looked for."""
    logs = [one.log for one in fort.stack.processes]
    assert logs
    for log in logs:
        assert "hunter" not in log.read_text(errors="replace"), log


@pytest.mark.both_databases
def test_who_comes_without_tls_is_refused(fort: Fort):
    nobody = AdminClient({"bootstrap.servers": fort.kafka.login, "log_level": 0})
    with pytest.raises(KafkaException):
        nobody.list_topics(timeout=1)
    with pytest.raises(mysql.connector.Error, match=r"insecure transport|Access denied"):
        mysql.connector.connect(
            host=fort.database.host, port=fort.database.port, user=USER, password=MYSQL_PASSWORD, ssl_disabled=True,
            charset="utf8mb4", collation="utf8mb4_general_ci", use_pure=True,
        )  # fmt: skip


SCRAM = {"kafka_security": "SASL_SSL", "kafka_sasl_mechanism": "SCRAM-SHA-512", "kafka_sasl_user": USER}
PLAINTEXT = {"kafka_security": "PLAINTEXT", "kafka_ca": ""}
SSL = {"kafka_security": "SSL"}
WRONG = {"kafka_sasl_password": "wrong-hunter"}


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("login", {**SCRAM, "kafka_sasl_password": KAFKA_PASSWORD}),
        ("login", {**SCRAM, "kafka_sasl_password": KAFKA_PASSWORD, "kafka_sasl_mechanism": "SCRAM-SHA-256"}),
        ("login", {**SCRAM, "kafka_sasl_password": KAFKA_PASSWORD, "kafka_sasl_mechanism": "PLAIN"}),
        ("mutual", {**SSL, "kafka_cert": "mine", "kafka_key": "mine"}),
    ],
)
def test_kafka_lets_in_whom_it_should(fort: Fort, place: str, told: dict[str, str]):
    assert asyncio.run(missing_topics(kafka_settings(fort, place, told)))


@pytest.mark.parametrize(
    ("place", "told", "code", "message"),
    [
        ("login", {**SCRAM, **WRONG}, 2, "refuses the user 'lately'"),
        ("login", {**SCRAM, **WRONG, "kafka_sasl_mechanism": "PLAIN"}, 2, "refuses the user 'lately'"),
        ("login", {**SCRAM, **WRONG, "kafka_ca": "stranger"}, 2, "is not trusted (unable to get local issuer"),
        ("login", {**SCRAM, **WRONG, "kafka_ca": ""}, 2, "is not trusted (unable to get local issuer"),
        ("localhost", {**SCRAM, **WRONG}, 2, "is not trusted (Hostname mismatch"),
        ("login", PLAINTEXT, 75, "it does not expect LATELY_KAFKA_SECURITY=PLAINTEXT"),
        ("login", SSL, 75, "it does not expect LATELY_KAFKA_SECURITY=SSL"),
        ("broker", SSL, 75, "it does not expect LATELY_KAFKA_SECURITY=SSL"),
        ("broker", {**SCRAM, **WRONG, **PLAINTEXT, "kafka_security": "SASL_PLAINTEXT"}, 2, "expects no SASL: set "),
        ("mutual", SSL, 2, "does not accept the certificate of this client"),
        (
            "mutual",
            {**SSL, "kafka_cert": "other", "kafka_key": "other"},
            2,
            "set LATELY_KAFKA_CERT and LATELY_KAFKA_KEY",
        ),
    ],
)
@unopened
def test_why_kafka_does_not_let_us_in_is_said_with_the_next_step(
    fort: Fort, place: str, told: dict[str, str], code: int, message: str
):
    said = refusal(lambda: asyncio.run(missing_topics(kafka_settings(fort, place, told))))
    assert message in str(said)
    assert said.exit_code == code


@unopened
def test_where_one_broker_lets_us_in_another_that_does_not_ends_nothing(fort: Fort):
    servers = f"{fort.kafka.mutual},{fort.kafka.login}"
    told = {**SCRAM, "kafka_sasl_password": KAFKA_PASSWORD, "kafka_ca": str(fort.authority.ca)}
    assert asyncio.run(diagnose(Settings(kafka=servers, **told))) is None
    assert isinstance(asyncio.run(diagnose(Settings(kafka=fort.kafka.mutual, **told))), Refused)
    gc.collect()


def kafka_settings(fort: Fort, place: str, told: dict[str, str]) -> Settings:
    places = {
        "login": fort.kafka.login, "mutual": fort.kafka.mutual, "broker": fort.kafka.broker.address,
        "localhost": fort.kafka.login.replace("127.0.0.1", "localhost"),
    }  # fmt: skip
    files = fort.files()
    given = {name: files.get((name, text), text) for name, text in {"kafka_ca": "ours", **told}.items()}
    return Settings(kafka=places[place], **given)


VERIFIED = {"mysql_tls": "VERIFY_IDENTITY", "mysql_ca": "ours"}
MUTUAL = {"mysql_user": "mutual", "mysql_password": ""}


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "told",
    [
        {},
        {"mysql_tls": "REQUIRED"},
        VERIFIED,
        {**VERIFIED, "mysql_tls": "VERIFY_CA", "mysql_host": "localhost"},
        {**VERIFIED, **MUTUAL, "mysql_cert": "mine", "mysql_key": "mine"},
    ],
)
def test_mysql_lets_in_whom_it_should(fort: Fort, told: dict[str, str]):
    with closing(connect(mysql_settings(fort, told))) as connection:
        assert connection.is_secure


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("told", "code", "message"),
    [
        ({"mysql_tls": "DISABLED"}, 2, "takes TLS only, and LATELY_MYSQL_TLS is DISABLED"),
        ({**VERIFIED, "mysql_ca": "stranger"}, 2, "is not trusted ("),
        ({"mysql_tls": "VERIFY_CA"}, 2, "is not trusted ("),
        ({**VERIFIED, "mysql_host": "localhost"}, 2, "is not trusted (Hostname mismatch"),
        ({**VERIFIED, "mysql_password": "wrong-hunter"}, 2, "MySQL refuses lately@"),
        ({**VERIFIED, **MUTUAL}, 2, "MySQL refuses mutual@"),
        ({**VERIFIED, **MUTUAL, "mysql_cert": "other", "mysql_key": "other"}, 75, "LATELY_MYSQL_CERT"),
    ],
)
def test_why_mysql_does_not_let_us_in_is_said_with_the_next_step(
    fort: Fort, told: dict[str, str], code: int, message: str, database_product: str
):
    if database_product == "mysql" and told == {"mysql_tls": "DISABLED"}:
        message = "MySQL refuses lately@"  # it does not tell a stranger that the account requires TLS
    said = refusal(lambda: connect(mysql_settings(fort, told)))
    assert message in str(said)
    assert said.exit_code == code


def mysql_settings(fort: Fort, told: dict[str, str]) -> Settings:
    files = fort.files()
    given = {name: files.get((name, text), text) for name, text in told.items()}
    own = {"mysql_host": fort.database.host, "mysql_user": USER, "mysql_password": MYSQL_PASSWORD}
    return Settings(mysql_port=fort.database.port, mysql_database=fort.stack.name, **{**own, **given})


def test_a_database_without_tls_gets_no_password_where_tls_is_required(fort: Fort, database: dict):
    settings = Settings(
        mysql_host=database["host"], mysql_port=database["port"], mysql_user="nobody", mysql_tls="REQUIRED"
    )
    # Had it got as far as the user, that would have been the complaint.
    assert "has no TLS, and LATELY_MYSQL_TLS is REQUIRED" in str(refusal(lambda: connect(settings)))


WRONG_USER = {"LATELY_KAFKA_SASL_USER": "wrong"}


@pytest.mark.parametrize(
    ("command", "env", "message"),
    [
        (WORKER, {"LATELY_KAFKA_SASL_MECHANISM": "PLAIN", **WRONG_USER}, "refuses the user 'wrong'"),
        (SOURCE, WRONG_USER, "refuses the user 'wrong'"),
        ([*LATELY, "dlq", "list"], WRONG_USER, "refuses the user 'wrong'"),
        (SOURCE, {"LATELY_MYSQL_CA": "stranger"}, "the certificate of MySQL at"),
        (WORKER, {"LATELY_MYSQL_CA": "/nowhere.pem"}, "LATELY_MYSQL_CA: '/nowhere.pem' cannot be read"),
    ],
)
def test_what_cannot_get_in_ends_with_2_and_one_line(fort: Fort, command: list[str], env: dict, message: str):
    given = {name: str(fort.stranger.ca) if text == "stranger" else text for name, text in env.items()}
    code, output = ending(fort, command, **given)
    (line,) = [line for line in output.splitlines() if line.startswith("lately: ")]
    assert message in line
    assert code == 2
    assert "Traceback" not in output
    assert "hunter" not in output


@pytest.mark.cost(33)
def test_an_order_goes_all_the_way_and_new_passwords_are_noticed(fort: Fort):
    stack, broker = fort.stack, fort.kafka.broker
    source = stack.source()
    # PLAIN, as of all logins only it sends the password itself; at the level at which aiokafka logs what it sends.
    worker = stack.worker("worker", WORKER, LATELY_KAFKA_SASL_MECHANISM="PLAIN").start().wait_ready()
    stack.env["LATELY_WEB_PORT"] = str(worker.port)
    stack.insert(("o-1", "tea", "ann", "19.90", "2026-01-31 08:00:00", "card"))
    eventually(lambda: shows(worker, stack), 30)
    asked = worker.get("/v1/users/ann/purchases?consistency=source")
    assert (asked.status, len(asked.json["purchases"])) == (200, 1)

    verified = stack.lately("verify", "--json")
    assert verified.child.returncode == 0, verified.tail()
    looked = stack.lately("doctor", "--json")
    found = {one["name"]: one for one in json.loads(looked.tail(1))["findings"]}
    assert {found[name]["result"] for name in ("kafka", "connection", "source", "worker", "dead letters")} == {"ok"}
    assert "SASL_SSL" in found["kafka"]["detail"]
    assert found["connection"]["detail"].endswith(", with TLS")
    for page in ("/operator", "/metrics", "/readyz?verbose"):
        assert "hunter" not in worker.get(page).text
    assert "SaslHandShakeRequest" in worker.process.log.read_text(), "the log does not say what is sent"

    # MySQL: the source notices when it has to connect again, and waits until the password is correct.
    stack.execute(f"ALTER USER {USER} IDENTIFIED BY 'another'")
    stack.kill_connections(USER)
    stack.insert(("o-2", "mug", "ann", "9.90", "2026-01-31 09:00:00", "card"))
    eventually(lambda: f"publishing stopped (MySQL refuses {USER}@" in source.tail(), 30)
    assert "correct LATELY_MYSQL_*); trying again in" in source.tail()
    code, output = ending(fort, SOURCE)
    assert (code, "lately: MySQL refuses" in output) == (2, True), "a start is refused"
    stack.execute(f"ALTER USER {USER} IDENTIFIED BY '{MYSQL_PASSWORD}'")

    # Kafka: the source ends; the worker stays, for what it has it can still show, and says what is wrong.
    eventually(lambda: shows(worker, stack), 30)
    fort.kafka.set_password("another")
    broker.stop()
    broker.extra_settings = broker.extra_settings.replace("user_lately=", "user_somebody=")
    broker.start()
    assert source.child.wait(60) == 2
    assert f"lately: Kafka at {fort.kafka.login} refuses the user 'lately'" in source.tail(1)
    eventually(lambda: "Authentication failed: Invalid" in errors_of(worker) and "start again" in errors_of(worker), 30)
    assert worker.process.is_running
    worker.kill()  # while Kafka does not let it in, it would take its time
    assert_no_secret_was_told(fort)


def errors_of(worker: Worker) -> str:
    return "\n".join(line for line in worker.process.log.read_text().splitlines() if "[ERROR]" in line)


def shows(worker: Worker, stack: Stack) -> None:
    assert worker.purchases("ann") == stack.truth("ann") != []
