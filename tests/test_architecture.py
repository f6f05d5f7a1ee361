"""The path of one order in docs/architecture.md consists of functions that exist."""

import ast
import re

from tests.kit.stack import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
STEPS = re.findall(r"^\d+\. (.*)$", PAGE.partition("## The path of one order")[2], re.MULTILINE)
MAX_STEPS = 40


def definitions(file: str) -> set[str]:
    """The functions and methods of a file, methods as Class.method."""
    names = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            functions = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            names |= {f"{node.name}.{function.name}" for function in functions}
    return names


def test_every_function_on_the_path_of_an_order_exists():
    named = re.findall(r"`(\w[\w/]*\.py): ([\w.]+)`", PAGE)
    assert len(named) >= len(STEPS) > 20
    missing = [f"{file}: {function}" for file, function in named if function not in definitions(file)]
    assert missing == []


def test_the_path_of_an_order_names_a_function_in_each_of_at_most_forty_steps():
    assert len(STEPS) <= MAX_STEPS
    assert all(re.match(r"`\w[\w/]*\.py: [\w.]+` — .+\.$", step) for step in STEPS)
