"""The interface of the package: its names, and the libraries that they load."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from pathlib import Path

import faust
import pytest

import chunks
from chunks.app import ChunkedApp
from tests.kit.stack import ROOT

SOURCE = Path(chunks.__file__)


def test_names_for_the_type_checker_and_names_at_run_time_are_the_same():
    tree = ast.parse(SOURCE.read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    names = {(node.module, alias.name) for node in typed.body for alias in node.names}
    assert names == {(f"chunks.{module}", name) for module, of_it in chunks._EXPORTS.items() for name in of_it}
    assert sorted(chunks.__all__) == sorted(name for _, name in names)


@pytest.mark.parametrize("name", chunks.__all__)
def test_each_name_can_be_imported_and_is_not_hidden_by_a_module(name: str):
    assert not (SOURCE.parent / f"{name}.py").exists(), "importing the module would replace the name"
    assert getattr(chunks, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = chunks.nonsense


@pytest.mark.parametrize(
    "code", ["from chunks import ChunkError, ClosedPartition, UnsupportedLibrary", "import app.settings"]
)
def test_cheap_imports_load_neither_faust_nor_rocksdb(code: str):
    check = "import sys; sys.exit(bool({'faust', 'rocksdict', 'aiokafka'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", f"{code}; {check}"], cwd=ROOT, check=False).returncode == 0


def test_showing_the_settings_loads_no_tables():
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "app", "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "app.settings" in modules
    assert not {"faust.tables", "rocksdict", "chunks.store"} & modules


@pytest.fixture
def app(tmp_path: Path) -> ChunkedApp:
    return ChunkedApp(
        "exports", Table="chunks.table:Table", TableManager="chunks.manager:TableManager", datadir=str(tmp_path)
    )


def test_a_table_accepts_the_former_name_of_its_source_topic_with_a_warning_at_the_line_that_uses_it(app: ChunkedApp):
    topic = app.topic("orders")
    with pytest.warns(DeprecationWarning, match="use source_topic") as caught:
        former = app.Table("former", fed_by=topic)
    assert (former.source_topic, [warning.filename for warning in caught]) == ("orders", [__file__])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert app.Table("current", source_topic=topic).source_topic == "orders"


def test_a_table_without_a_source_topic_is_refused(app: ChunkedApp):
    with pytest.raises(TypeError, match="source_topic"):
        app.Table("without")


def test_a_table_is_one_of_faust_and_reads_like_a_reader_of_stores(app: ChunkedApp):
    table = app.Table("both", source_topic=app.topic("orders"))
    assert isinstance(table, faust.Table)
    assert isinstance(table, chunks.StoreReader)
