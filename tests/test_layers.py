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
        "app.tls",
        "app.settings",
        "app.kafka.client",
        "domain.events",
        "domain.purchases",
        "domain.digests",
        "domain.pages",
        "domain.product_history",
        "domain.differences",
        "domain.diagnosis",
        "domain.co_purchases",
        "app.topics",
        "app.metrics",
        "app.tokens",
        "domain.dead_letters",
        "app.freeze_guard",
        "app.kafka.groups",
        "app.services.stall_detector",
        "app.otel",
        "app.logs",
    ),
    ("source",),
    ("app.worker",),
    ("app.core",),
    ("app.batch",),
    (
        "app.kafka.tail",
        "app.services.source_status",
        "app.services.lost_state",
        "app.services.progress",
        "app.services.throttle",
        "app.services.watchdog",
        "app.selection",
        "app.services.dead_letter_counts",
        "app.services.daily_reports",
    ),
    ("tables",),
    ("agents",),
    ("web",),
    ("app.main",),
    ("commands", "app.__main__"),
]


def level(module: str) -> int | None:
    """The place of a module of ours in ORDER; None for other people's."""
    for number, names in enumerate(ORDER):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    return None


def modules() -> list[Path]:
    """All modules of the product but the package `app` itself, which is lazy."""
    folders = ("app", "agents", "chunks", "commands", "domain", "source", "tables", "web")
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


@pytest.mark.parametrize("pure", ["domain.purchases", "domain.events", "app.settings", "source.events"])
def test_importing_the_pure_parts_starts_no_faust(pure: str):
    code = f"import sys, {pure}; sys.exit('faust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
