"""Imports between the packages go one way, and importing the pure parts starts nothing."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Package -> the packages that it may import.
ALLOWED = {
    "domain": set(),
    "chunks": set(),
    "app": {"domain", "chunks"},
    "source": {"app", "domain"},
    "tables": {"app", "domain", "chunks"},
    "agents": {"tables", "app", "domain", "chunks"},
    "web": {"tables", "source", "app", "domain", "chunks"},
    "commands": {"tables", "source", "app", "domain", "chunks"},
}
#: The composition root: the only modules that may import every package. `app` itself imports it on demand.
ROOTS = {"app", "app.main", "app.__main__"}


def modules() -> dict[str, Path]:
    """All modules of the product by name."""
    paths = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()


@cache
def imports(module: str) -> set[str]:
    """The modules of the product that `module` imports at run time, in functions too."""
    tree = ast.parse(MODULES[module].read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    imported: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                imported.add(full if full in MODULES else node.module or "")
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    return imported & set(MODULES)


@pytest.mark.parametrize("module", sorted(set(MODULES) - ROOTS))
def test_a_module_imports_only_packages_that_its_package_may_import(module: str):
    package = module.partition(".")[0]
    upward = {name for name in imports(module) if name.partition(".")[0] not in ALLOWED[package] | {package}}
    assert not upward, f"{module} imports {', '.join(sorted(upward))}"
    assert not imports(module) & (ROOTS - {"app"}), f"{module} imports the composition root"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("web.http.")))
def test_the_http_package_knows_no_view_and_no_purchase(module: str):
    allowed = ("app", "web.http", "web.pages", "domain.codec", "domain.events", "domain.values")
    others = {name for name in imports(module) if not name.startswith(allowed)}
    assert not others, f"{module} imports {', '.join(sorted(others))}"


def test_no_import_cycle_connects_two_modules():
    graph = {module: imports(module) - {module} for module in sorted(set(MODULES) - {"app"})}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_no_package_has_more_than_thirty_percent_of_the_lines():
    lines = dict.fromkeys(ALLOWED, 0)
    for name, path in MODULES.items():
        lines[name.partition(".")[0]] += path.read_text().count("\n")
    assert max(lines.values()) <= 0.3 * sum(lines.values()), lines


def test_the_diagram_of_the_packages_shows_exactly_the_imports_that_exist():
    documented = set(
        re.findall(r"^    (\w+) --> (\w+)$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    )
    existing = {
        (module.partition(".")[0], name.partition(".")[0])
        for module in set(MODULES) - ROOTS
        for name in imports(module)
    }
    assert documented == {(importer, imported) for importer, imported in existing if importer != imported}


@pytest.mark.parametrize("pure", ["domain.purchases", "domain.events", "app.settings", "source.events"])
def test_importing_the_pure_parts_starts_no_faust(pure: str):
    code = f"import sys, {pure}; sys.exit('faust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_commands_print_through_one_function_that_escapes_control_characters():
    prints = {
        f"{module}:{node.lineno}"
        for module in MODULES
        if module.split(".")[0] in ("commands", "source") and module != "commands.output"
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "click.echo", "click.secho")
    }
    assert prints == set()
