"""Imports go one way, and importing the pure parts starts nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Each may import from itself and from those before it.
ORDER = [
    ("chunks",),
    (
        "app.errors",
        "app.secure",
        "app.config",
        "app.kafka",
        "app.models",
        "app.folds",
        "app.digests",
        "app.lists",
        "app.product_history",
        "app.comparison",
        "app.diagnosis",
        "app.co_purchases",
        "app.topics",
        "app.metrics",
        "app.tokens",
        "app.dead_letters",
        "app.frozen",
        "app.groups",
        "app.stuck",
        "app.tracing",
        "app.logs",
    ),
    ("app.source",),
    ("app.start",),
    ("app.core",),
    ("app.batch",),
    (
        "app.follower",
        "app.freshness",
        "app.lost_state",
        "app.progress",
        "app.background",
        "app.watchdog",
        "app.selection",
        "app.open_letters",
        "app.schedule",
    ),
    ("tables",),
    ("agents",),
    ("web",),
    ("app.main",),
    ("app.cli", "app.__main__"),
]


def level(module: str) -> int | None:
    """The place of a module of ours in ORDER; None for other people's."""
    for number, names in enumerate(ORDER):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    return None


def modules() -> list[Path]:
    """All modules of the product but the package `app` itself, which is lazy."""
    folders = ("app", "agents", "chunks", "tables", "web")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if path != ROOT / "app" / "__init__.py"]


def name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", modules(), ids=name)
def test_a_module_imports_only_from_those_before_it(path: Path):
    own = level(name(path))
    assert own is not None, "a new module has no place in ORDER yet"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        else:
            continue
        for module in imported:
            theirs = level(module)
            assert theirs is None or theirs <= own, f"{name(path)} imports {module}"


@pytest.mark.parametrize("pure", ["app.folds", "app.models", "app.config", "app.source.events"])
def test_importing_the_pure_parts_starts_no_faust(pure: str):
    code = f"import sys, {pure}; sys.exit('faust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
