"""What is shipped to run Lately for good names only what there is: settings, metrics, routes, commands, pages."""

from __future__ import annotations

import json
import re
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from prometheus_client.metrics import MetricWrapperBase

from app import metrics
from app.__main__ import COMMANDS
from app.settings import FILE_SUFFIX, Settings
from local.shop import TABLE
from source import metrics as source_metrics
from tests.kit.stack import ROOT

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "lately"
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "lately.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SCRAPED = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ALERT_PAGES = (ROOT / "docs" / "operations" / "alerts.md").read_text()
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))

FIELDS = Settings.__dataclass_fields__
SETTINGS = {f"LATELY_{name.upper()}" for name in FIELDS}
SETTINGS |= {f"LATELY_{name.upper()}{FILE_SUFFIX}" for name, spec in FIELDS.items() if spec.metadata["secret"]}
#: Those of which a worker can be asked as well as a source, and what every process says of itself.
FOREIGN_METRICS = {"up", "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes"}
STOP_TIMEOUT_S = int(re.search(r"STOP_TIMEOUT_S = (\d+)", (ROOT / "app" / "worker.py").read_text()).group(1))
COMMAND_NAMES = {"worker", *(one.name for one in COMMANDS)}


def shipped() -> list[Path]:
    """All files that somebody copies to a server."""
    return [ROOT / "Dockerfile", ROOT / "compose.yaml", *(path for path in sorted(DEPLOY.rglob("*")) if path.is_file())]


def queries() -> list[str]:
    """What the alerts and the dashboard ask Prometheus."""
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    return [rule["expr"] for rule in ALERTS] + asked


def sample_names() -> set[str]:
    """The names under which Prometheus knows Lately's metrics."""
    kinds = {"counter": "_total", "info": "_info"}
    own = [one for module in (metrics, source_metrics) for one in vars(module).values()]
    return {
        family.name + kinds.get(family.type, "")
        for one in own
        if isinstance(one, MetricWrapperBase)
        for family in one.describe()
    }


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_is_named_exists(path: Path):
    text = path.read_text()
    assert set(re.findall(r"LATELY_\w+", text)) - {"LATELY_PORT"} <= SETTINGS


@pytest.mark.parametrize("query", queries())
def test_every_metric_that_is_asked_for_exists(query: str):
    plain = re.sub(r'"[^"]*"|\[[^\]]*\]|\b(by|on) \([^)]*\)', "", query)
    words = {re.sub("_(bucket|sum|count)$", "", word) for word in re.findall(r"\b(lately_\w+|process_\w+|up)\b", plain)}
    assert words, "it asks for nothing of ours"
    assert words <= sample_names() | FOREIGN_METRICS


def test_the_dashboard_is_the_same_for_every_grafana():
    (variable,) = DASHBOARD["templating"]["list"]
    assert (DASHBOARD["uid"], variable["type"], variable["name"]) == ("lately", "datasource", "datasource")
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    sources = [one["datasource"]["uid"] for panel in panels for one in (panel, *panel["targets"])]
    assert set(sources) == {"${datasource}"}


def test_every_alert_has_its_page_and_every_page_its_alert():
    pages = re.findall(r"^### (\w+)$", ALERT_PAGES, re.MULTILINE)
    assert pages == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"] == f"docs/operations/alerts.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert seconds(rule["for"].replace("m", "0s")) > 0
        page = ALERT_PAGES.partition(f"### {rule['alert']}\n")[2].partition("\n###")[0]
        assert page.strip().startswith("Critical: ") == (rule["labels"]["severity"] == "critical"), rule["alert"]


def test_every_alert_is_tried_out():
    trials = yaml.safe_load((DEPLOY / "prometheus" / "alerts.test.yml").read_text())["tests"]
    tried = [one for trial in trials for one in trial.get("alert_rule_test", ())]
    outcomes = {(one["alertname"], bool(one["exp_alerts"])) for one in tried}
    assert outcomes == {(rule["alert"], fires) for rule in ALERTS for fires in (True, False)}


def test_alerts_know_the_jobs_that_are_scraped():
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in SCRAPED}
    named = {job for query in queries() for text in re.findall(r'job=~?"([^"]*)"', query) for job in text.split("|")}
    monitoring = (CHART / "templates" / "monitoring.yaml").read_text()
    monitored = set(re.findall(r"targetLabel: job, replacement: ([\w-]+)", monitoring))
    assert named == set(jobs) == monitored
    services = COMPOSE["services"]
    for job, targets in jobs.items():
        for host, port in (target.split(":") for target in targets):
            settings = services[host]["environment"]
            assert settings["LATELY_WEB_HOST"] == host == services[host]["hostname"]
            default = str(Settings().web_port) if job == "lately-worker" else settings["LATELY_SOURCE_METRICS_PORT"]
            assert port == default


def test_compose_gives_each_worker_an_address_and_a_volume_of_its_own_and_all_the_same_secrets():
    services = COMPOSE["services"]
    ours = {name: one for name, one in services.items() if one["image"] == "lately"}
    workers = {name: one for name, one in ours.items() if name.startswith("worker-")}
    assert len(workers) == 2
    for field in (lambda one: one["environment"]["LATELY_WEB_HOST"], lambda one: one["volumes"][0].split(":")[0]):
        assert len({field(one) for one in workers.values()}) == 2
    for one in ours.values():
        Settings.from_env(
            {k: v for k, v in one["environment"].items() if not k.endswith(FILE_SUFFIX) and k != "LATELY_AUTH"}
        )
        assert {Path(v).name for k, v in one["environment"].items() if k.endswith(FILE_SUFFIX)} == set(one["secrets"])
        assert "signing_key" in one["secrets"]
        assert one["read_only"]
        assert one["cap_drop"] == ["ALL"]
        assert seconds(one["stop_grace_period"]) > STOP_TIMEOUT_S
        command = one.get("command", [])
        assert not command or command[0] in COMMAND_NAMES
    for name, one in services.items():
        for published in one.get("ports", ()):
            assert published.startswith("127.0.0.1:"), name
    asked = {secret["environment"] for secret in COMPOSE["secrets"].values()}
    example = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert example == dict.fromkeys(asked, "")


def test_the_table_of_the_try_out_is_that_of_the_demo():
    shipped_table = (DEPLOY / "mysql" / "orders.sql").read_text().partition("\n")[2]
    assert shipped_table.strip() == f"{TABLE};"


def test_the_image_has_the_packages_and_versions_of_setup_cfg():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    folders = {name.strip().rstrip("*") for name in config["options.packages.find"]["include"].split(",")}
    assert set(re.findall(r"^COPY (\w+) /build/\w+$", DOCKERFILE, re.MULTILINE)) == folders
    allowed = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = {word for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()}
    assert allowed == copied
    lines = (DEPLOY / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split()[0].lower().replace("_", "-").split("==") for line in lines if line[0] not in "# ")
    for line in config["options"]["install_requires"].split():
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[wanted.name.lower().replace("_", "-")]), line


def test_every_file_that_the_image_installs_has_a_hash():
    text = (DEPLOY / "requirements.txt").read_text()
    requirements = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    for line in requirements:
        assert re.fullmatch(r"[\w.-]+==\S+( +--hash=sha256:[0-9a-f]{64})+", line), line
    assert "--require-hashes --requirement /build/requirements.txt" in DOCKERFILE
    assert "--require-hashes -r deploy/requirements.txt" in (ROOT / "docs" / "operations" / "deploy.md").read_text()


def test_the_image_runs_as_nobody_in_particular_and_asks_a_route_that_is_open():
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    check = DOCKERFILE.partition("HEALTHCHECK")[2].partition("\n\n")[0]
    assert "/livez" in check
    assert "'LATELY_WEB_PORT', '6066'" in check
    assert Settings().web_port == 6066
    assert 'ENTRYPOINT ["lately"]\nCMD ["worker", "-l", "info"]' in DOCKERFILE


def test_the_chart_probes_what_the_worker_serves_and_waits_for_it_to_end():
    workers = (CHART / "templates" / "workers.yaml").read_text()
    probes = dict(re.findall(r"(\w+)Probe:\n\s+httpGet: { path: (/\w+), port: http }", workers))
    assert probes == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    for name in ("workers", "source"):
        text = (CHART / "templates" / f"{name}.yaml").read_text()
        assert int(re.search(r"terminationGracePeriodSeconds: (\d+)", text).group(1)) > STOP_TIMEOUT_S
    pod = (CHART / "templates" / "_pod.tpl").read_text()
    assert "enableServiceLinks: false" in pod, "a Service named lately makes LATELY_PORT, which is no setting"


def test_the_policies_of_the_network_select_every_pod_of_the_chart():
    templates = {path.name: path.read_text() for path in (CHART / "templates").glob("*.yaml")}
    labels = {one for text in templates.values() for one in re.findall(r"kubernetes.io/component: (\w+)$", text, re.M)}
    policies = templates["networkpolicy.yaml"]
    (others,) = re.findall(r"operator: In, values: \[(.*)\]", policies)
    assert {"worker", *others.split(", ")} == labels
    assert policies.count("policyTypes: [Ingress, Egress]") == 2


def test_every_pod_of_the_chart_has_the_keys_and_a_root_file_system_that_is_read_only():
    shared = (CHART / "templates" / "_pod.tpl").read_text()
    secrets = set(re.findall(r"name: (LATELY_\w+)_FILE\n", shared))
    assert secrets == {f"LATELY_{name}" for name in ("MYSQL_PASSWORD", "TOKEN_SECRET", "CURSOR_SECRET", "SIGNING_KEY")}
    assert "readOnlyRootFilesystem: true" in shared
    for name in ("workers", "source", "setup", "verify"):
        text = (CHART / "templates" / f"{name}.yaml").read_text()
        for part in ("pod", "container", "env", "mounts", "volumes"):
            assert f'include "lately.{part}" .' in text, (name, part)
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    rotated = {f"LATELY_{name.upper()}_PREVIOUS" for name in schema["previousSecrets"]["items"]["enum"]}
    assert rotated == {name for name in SETTINGS if name.endswith("_PREVIOUS")}


def test_a_worker_that_ends_with_70_is_started_again_and_one_that_ends_with_2_by_systemd_is_not():
    unit = (DEPLOY / "systemd" / "lately-worker@.service").read_text()
    assert "\nRestart=on-failure\n" in unit, "any exit code but 0"
    assert "\nRestartPreventExitStatus=2\n" in unit, "and of the others only 2 is left alone"
    assert "\nStartLimitIntervalSec=0\n" in unit, "however often"
    workers = [one for name, one in COMPOSE["services"].items() if name.startswith("worker-")]
    assert {one["restart"] for one in workers} == {"on-failure"}
    chart = (CHART / "templates" / "workers.yaml").read_text() + (CHART / "templates" / "_pod.tpl").read_text()
    assert "kind: StatefulSet" in chart, "its pods are always started again"
    assert "restartPolicy" not in chart


def test_the_charts_settings_are_allowed_and_hold_no_secret():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    Settings.from_env(values["settings"])
    refused = set(schema["properties"]["settings"]["propertyNames"]["not"]["enum"])
    assert refused >= {f"LATELY_{name.upper()}" for name, spec in FIELDS.items() if spec.metadata["secret"]}
    assert set(values) | {"global"} == set(schema["properties"])
    assert (CHART / "alerts.yml").read_text() == (DEPLOY / "prometheus" / "alerts.yml").read_text()


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_a_command_there_is_with_settings_there_are(path: Path):
    unit = path.read_text()
    program, command = re.search(r"^ExecStart=(\S+) (\w+)", unit, re.MULTILINE).groups()
    assert program == "/opt/lately/bin/lately"
    assert command in COMMAND_NAMES
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE).group(1)) > STOP_TIMEOUT_S
    credentials = set(re.findall(r"^LoadCredential=(\w+):/etc/lately/\1$", unit, re.MULTILINE))
    assert "signing_key" in credentials
    files = dict(re.findall(rf"^Environment=LATELY_(\w+){FILE_SUFFIX}=%d/(\w+)$", unit, re.MULTILINE))
    assert {name.lower(): name.lower() for name in files} == {name: name for name in credentials}
    assert all(file == name.lower() for name, file in files.items())
    shared = dict(re.findall(r"^(LATELY_\w+)=(.*)$", (DEPLOY / "systemd" / "lately.env").read_text(), re.MULTILINE))
    own = dict(re.findall(r"^Environment=(LATELY_\w+)=([^%\n]*)$", unit, re.MULTILINE))
    Settings.from_env({**shared, **own, "LATELY_TOKEN_SECRET": "x" * 16})
    folder = own.get("LATELY_DATA_DIR")
    assert folder is None or f"StateDirectory={Path(folder).parent.relative_to('/var/lib')}" in unit


@pytest.mark.parametrize("path", sorted((DEPLOY / "systemd").glob("*.conf")), ids=lambda path: path.name)
def test_a_drop_in_hands_over_each_file_that_a_setting_names(path: Path):
    drop_in = path.read_text()
    credentials = dict(re.findall(r"^LoadCredential=(\w+):/etc/lately/(\w+)(?:\.pem)?$", drop_in, re.MULTILINE))
    assert all(name == file for name, file in credentials.items())
    assert set(re.findall(r"=%d/(\w+)$", drop_in, re.MULTILINE)) == set(credentials)
    own = dict(re.findall(r"^Environment=(LATELY_\w+)=([^%\n]*)$", drop_in, re.MULTILINE))
    secrets = re.findall(rf"^Environment=(LATELY_\w+){FILE_SUFFIX}=%d/\w+$", drop_in, re.MULTILINE)
    assert secrets
    Settings.from_env({**own, **dict.fromkeys(secrets, "x" * 16)})
