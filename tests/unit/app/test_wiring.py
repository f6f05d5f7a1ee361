"""The composition root starts every service by name; importing any other module starts nothing."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

SERVICES = """
import app.main
app = app.main.app
print(*sorted(type(service).__name__ for service in (*app._extra_services, *app._children)))
print(app.tables.on_loss.__qualname__, app.tables.before_step.__qualname__, type(app.throttle).__name__)
"""

STARTED = """
import gc, importlib, pkgutil, sys, threading
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
from aiokafka import AIOKafkaClient, AIOKafkaConsumer, AIOKafkaProducer
from app.core import app
print(*app._extra_services, *app._children, *threading.enumerate()[1:])
print(*(one for one in gc.get_objects() if isinstance(one, AIOKafkaClient | AIOKafkaConsumer | AIOKafkaProducer)))
"""


def output(code: str, *arguments: str) -> list[str]:
    """The lines that a new process prints for this code."""
    # mode sets a policy of asyncio, which Python 3.14 calls deprecated.
    ignored = ("agents.reading is deprecated", "'asyncio.")
    warnings = ["-W", "error", *(word for text in ignored for word in ("-W", f"ignore:{text}"))]
    command = [sys.executable, *warnings, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_composition_root_starts_these_services_and_no_others():
    services, functions = output(SERVICES)
    assert services.split() == [
        "ChangelogFollower", "DeadLetterCounts", "GroupDirectory", "ListFreshness", "ReadProgress", "SourceStatus",
        "Watchdog",
    ]  # fmt: skip
    assert functions.split() == ["LostStateHandler.handle_loss", "FreezeGuard.check", "Throttle"]


@pytest.mark.parametrize("package", ["tables", "agents", "web", "source", "app.services", "app.kafka", "app.control"])
def test_importing_a_package_starts_nothing(package: str):
    assert output(STARTED, package) == ["", ""]


@pytest.mark.parametrize(
    ("former", "name", "present"),
    [
        ("app.models", "ERASED", "domain.events.ERASED"),
        ("app.models", "REMOVED", "domain.events.REMOVED"),
        ("agents.reading", "readable", "agents.decode.decode_events"),
    ],
)
def test_a_former_import_of_the_tutorial_still_works_with_a_warning(former: str, name: str, present: str):
    module, _, attribute = present.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{former} is deprecated: import .* {module}"):
        imported = getattr(importlib.reload(importlib.import_module(former)), name)
    assert imported is getattr(importlib.import_module(module), attribute)
