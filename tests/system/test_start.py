"""A worker or source that cannot work says why in one line and ends before it joins anything."""

from __future__ import annotations

import socket

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from local.process import find_free_port
from tests.kit.commands import FAUST_WORKER, LATELY_WORKER, run_to_end
from tests.kit.eventually import eventually
from tests.kit.stack import PYTHON, Stack


@pytest.mark.parametrize("command", [FAUST_WORKER, LATELY_WORKER])
def test_an_unknown_setting_ends_with_2_and_names_the_nearest(stack: Stack, command):
    code, output = run_to_end(stack, command, LATELY_KAFKAA="127.0.0.1:9092")
    assert (code, output) == (2, "lately: unknown setting LATELY_KAFKAA; did you mean LATELY_KAFKA?")


def test_a_port_that_is_taken_ends_with_2(stack: Stack):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        code, output = run_to_end(stack, FAUST_WORKER, LATELY_WEB_PORT=port)
    assert code == 2
    assert f"lately: cannot serve HTTP on 127.0.0.1:{port}" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("host", "cause"),
    [
        ("no-such-host.invalid", "LATELY_WEB_HOST: 'no-such-host.invalid' cannot be resolved"),
        ("192.0.2.1", "set LATELY_WEB_HOST to an address of this machine"),
    ],
)
def test_an_address_that_this_machine_does_not_have_is_named_as_the_cause(stack: Stack, host: str, cause: str):
    env = {"LATELY_WEB_HOST": host, "LATELY_WEB_PORT": str(find_free_port()), "LATELY_AUTH_INSECURE": "1"}
    code, output = run_to_end(stack, FAUST_WORKER, **env)
    assert code == 2
    assert cause in output
    assert "Traceback" not in output
    assert "listens there" not in output


def test_a_worker_listens_on_ipv6_and_is_asked_there(stack: Stack):
    worker = stack.worker(LATELY_WEB_HOST="::1")
    worker.host = "::1"
    worker.start().wait_ready()
    answer = worker.get("/v1/users/ann/purchases")
    assert answer.json["meta"]["worker"] == f"http://[::1]:{worker.port}"
    findings = stack.lately("doctor", "--json", LATELY_WEB_HOST="::1", LATELY_WEB_PORT=str(worker.port)).tail(100)
    assert f"http://[::1]:{worker.port} is ready" in findings


def test_only_this_user_can_read_tables(stack: Stack):
    worker = stack.worker()
    worker.folder.mkdir(mode=0o755)
    worker.start().wait_ready()
    readable = [path for path in [worker.folder, *worker.folder.rglob("*")] if path.stat().st_mode & 0o077]
    assert readable == []


def test_a_folder_that_another_worker_uses_ends_with_2(stack: Stack):
    worker = stack.worker().start().wait_ready()
    code, output = run_to_end(
        stack, FAUST_WORKER, LATELY_WEB_PORT=str(find_free_port()), LATELY_DATA_DIR=str(worker.folder)
    )
    assert code == 2
    assert f"lately: {worker.folder} is in use by the worker with process id {worker.process.pid}" in output
    assert worker.get("/readyz").status == 200


def test_a_folder_that_cannot_be_written_to_ends_with_1(stack: Stack):
    (stack.folder / "file").touch()
    folder = stack.folder / "file" / "worker"
    code, output = run_to_end(stack, FAUST_WORKER, LATELY_WEB_PORT=str(find_free_port()), LATELY_DATA_DIR=str(folder))
    assert code == 1
    assert f"lately: {folder} cannot be written to (Not a directory): make room there" in output
    assert "Traceback" not in output


def test_a_topic_with_the_wrong_partitions_ends_with_2(stack: Stack, kafka: str):
    name = stack.topic("orders")
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, 3, 1)])[name].result()
    code, output = run_to_end(stack, FAUST_WORKER, LATELY_WEB_PORT=str(find_free_port()))
    assert code == 2
    assert f"lately: topic {name} has 3 partitions, but LATELY_PARTITIONS is {stack.partitions}" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("command", [FAUST_WORKER, [PYTHON, "-m", "app", "source"]])
def test_without_kafka_it_ends_with_75(stack: Stack, command):
    stack.create_orders()
    stack.setup()
    nowhere = f"127.0.0.1:{find_free_port()}"
    code, output = run_to_end(stack, command, LATELY_KAFKA=nowhere, LATELY_WEB_PORT=str(find_free_port()))
    assert code == 75
    assert f"lately: no answer from Kafka at {nowhere}" in output


def test_a_source_without_mysql_ends_with_75(stack: Stack):
    code, output = run_to_end(stack, [PYTHON, "-m", "app", "source"], LATELY_MYSQL_PORT=str(find_free_port()))
    assert code == 75
    assert "lately: no answer from MySQL" in output
    assert "LATELY_MYSQL_" in output


def test_a_source_without_its_outbox_names_the_command_that_makes_it(stack: Stack):
    code, output = run_to_end(stack, [PYTHON, "-m", "app", "source"])
    assert code == 2
    assert "run `lately source setup` first" in output


def test_since_and_all_exclude_each_other(stack: Stack):
    code, output = run_to_end(stack, [PYTHON, "-m", "app", "source", "setup", "--since", "1d", "--all"])
    assert (code, output) == (2, "lately: --since and --all exclude each other: use one of them")


def test_secrets_are_not_shown(stack: Stack):
    code, output = run_to_end(stack, [PYTHON, "-m", "app", "config"], LATELY_MYSQL_PASSWORD="hunter2")
    assert code == 0
    assert "LATELY_MYSQL_PASSWORD=***" in output
    assert "hunter2" not in output


def test_a_worker_told_to_stop_commits_what_it_did_and_ends_with_0(stack: Stack):
    stack.create_orders()
    stack.setup(since=None)
    stack.source()
    stack.insert(*[(f"o{number}", "Phone", f"user-{number}", "1.00", "2026-01-31", None) for number in range(200)])
    worker = stack.worker(command=LATELY_WORKER).start().wait_ready()
    eventually(lambda: worker.events() == 200, within=30)
    child = worker.process.child
    worker.process.stop(timeout=10)
    assert child.returncode == 0
    assert stack.committed("orders") == 200


@pytest.mark.slow
def test_of_two_sources_one_publishes_and_the_other_takes_over(stack: Stack):
    stack.create_orders()
    stack.setup()
    first, second = stack.source(), stack.source()
    eventually(lambda: "waiting to take over" in first.tail() + second.tail())
    waiting, leading = (first, second) if "waiting to take over" in first.tail() else (second, first)
    leading.kill()
    stack.insert(("o1", "Phone", "ann", "1.00", "2026-01-31", None))
    eventually(stack.outbox_is_empty, within=10)
    assert waiting.is_running
    assert len(stack.records("orders")) == 1
