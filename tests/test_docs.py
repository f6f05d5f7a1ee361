"""What the documents promise is what the code has."""

import dataclasses
import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from app import metrics
from app.settings import Settings
from app.topics import Topics
from bench.sizing import CASES, capacity_table
from domain.events import TYPES
from source import metrics as source_metrics
from tests.kit.stack import ROOT
from web.application import VIEWS

OPERATIONS = "\n".join(path.read_text() for path in sorted((ROOT / "docs" / "operations").glob("*.md")))
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
README = (ROOT / "README.md").read_text()


def test_every_setting_is_documented_with_its_default():
    rows = re.findall(r"^\| `(LATELY_\w+)` \| (?:`(.*?)`)? ?\| (.*) \|$", OPERATIONS, re.MULTILINE)
    assert rows == [
        (f"LATELY_{field.name.upper()}", str(Settings().to_display()[field.name]), field.metadata["help"])
        for field in dataclasses.fields(Settings)
    ]


def test_every_topic_and_event_type_is_documented():
    topics = Topics(Settings(id="<LATELY_ID>"))
    documented = re.findall(r"^\| `([^`]+)` \|", PROTOCOL, re.MULTILINE)
    assert {topic.name for topic in topics.all} <= set(documented)
    assert set(documented) >= TYPES


def test_every_metric_is_documented():
    own = [
        one
        for module in (metrics, source_metrics)
        for one in vars(module).values()
        if isinstance(one, MetricWrapperBase)
    ]
    names = {family.name for one in own for family in one.describe()}
    documented = {
        name.removesuffix("_total").removesuffix("_info") for name in re.findall(r"`(lately_\w+)", OPERATIONS)
    }
    assert names == documented


def test_every_route_of_the_readme_is_served():
    routes = {view.route.path for view in VIEWS}
    documented = set(re.findall(r"`(?:GET|POST) (/[^`?]*)", README)) | {"/", "/assets/lately.css", "/assets/live.js"}
    assert routes == documented


DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "chunks" / "README.md",
    ROOT / "tests" / "README.md",
]


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub forms them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_every_link_of_the_documents_leads_to_a_file_and_a_heading():
    for document in filter(Path.exists, DOCUMENTS):
        for target, anchor in re.findall(r"\]\((?!https?:)([^)# ]*)(?:#([^) ]+))?[^)]*\)", document.read_text()):
            path = document.parent / target if target else document
            assert path.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in anchors(path), f"{document.name}: {target}#{anchor}"


def test_no_page_of_the_operations_is_longer_than_250_lines():
    for page in (ROOT / "docs" / "operations").glob("*.md"):
        assert page.read_text().count("\n") <= 250, page.name


def test_every_test_in_the_table_of_faults_exists():
    named = re.findall(r"\]\(\.\./\.\./(tests/\S+) \"(\w+)\"\)", OPERATIONS)
    assert len(named) > 20
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text(), test


def test_the_table_of_the_capacity_is_what_its_formulas_give():
    page = (ROOT / "docs" / "capacity.md").read_text()
    assert capacity_table(CASES) in page, "`python -m bench.sizing` prints the new table"


def test_nothing_speaks_of_the_machine_it_was_written_on():
    for path in ROOT.rglob("*"):
        parts = Path(path).relative_to(ROOT).parts
        if path.suffix in {".py", ".md", ".cfg", ".toml", ".xml", ".sh", ".html"} and not parts[0].startswith("."):
            assert str(ROOT) not in path.read_text(), path
