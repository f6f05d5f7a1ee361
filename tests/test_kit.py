"""Rules for the tests themselves."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MODULES = sorted(path for path in TESTS.rglob("test_*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_a_test_module_imports_no_other_test_module(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules = [name for name in names if name.startswith("tests.") and ".test_" in name]
        assert not modules, f"move what {path.name} shares with {', '.join(modules)} to tests/kit"


def read_tests_on_one_database() -> dict[str, str]:
    """The tests with the mark `one_database` -> the reason, read from their source."""
    reasons = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.one_database":
                    reasons[f"{path.relative_to(TESTS)}::{node.name}"] = ast.literal_eval(mark.args[0])
    return reasons


def test_the_readme_lists_the_database_tests_that_run_on_one_server_with_their_reasons():
    section = (TESTS / "README.md").read_text().partition("## MariaDB and MySQL\n")[2].partition("\n## ")[0]
    listed = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE))
    assert listed == read_tests_on_one_database()


def test_a_test_on_one_database_is_in_a_module_of_tests_on_both():
    for test in read_tests_on_one_database():
        text = (TESTS / test.partition("::")[0]).read_text()
        assert "pytest.mark.both_databases" in text, f"{test}: without the mark both_databases it needs no reason"
