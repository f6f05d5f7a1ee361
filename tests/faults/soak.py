"""`make soak`: all of Lately for half an hour under random faults, then an exact comparison; did it stay flat?

Writes bench/soak.md and bench/soak.svg; exit 1 where an answer is wrong or a process is not flat.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from local.artifacts import resolve
from local.database import start_database
from local.process import LocalProcess, ServerFailed
from tests.faults.breaking import Breaking
from tests.faults.chart import svg
from tests.faults.fault_setup import Rig
from tests.faults.samples import BOUNDS, EVERY_S, Samples, Watched
from tests.kit.stack import ROOT, remove_settings

PER_S = 40
#: So many orders the shop has at most, so that what follows from their number does not grow.
KEEP = 4_000
JUDGED = ("worker one", "worker two", "source")


def main() -> int:
    """Run it; the exit code."""
    minutes = float(os.environ.get("SOAK_MINUTES", "30"))
    seed = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))
    remove_settings()
    say(f"soak: {minutes:g} min, SOAK_SEED={seed}")
    folder, artifacts = Path(tempfile.mkdtemp(prefix="soak-")), resolve(ROOT / ".lately")
    with ExitStack() as exits:
        mariadb = exits.enter_context(start_database(artifacts, folder / "database"))
        database = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
        rig = exits.enter_context(Rig(artifacts, database, folder / "rig", seed, PER_S, KEEP))
        watched = {f"worker {one}": Watched(_alive(rig.workers[one].process), rig.workers[one].folder)
                   for one in rig.workers}  # fmt: skip
        watched["source"] = Watched(_alive(rig.source), None)
        watched["broker"] = Watched(_alive(rig.broker.process), rig.broker.folder)
        watched["MariaDB"] = Watched(_alive(mariadb.process), mariadb.data)
        samples = Samples(watched)
        breaking = Breaking(rig, mariadb, random.Random(seed), say)
        wrong = ""
        try:
            with samples.taking(), rig.shop.trading():
                breaking.run(samples.start + minutes * 60, samples.start)
            rig.settle()
            verify = rig.stack.lately("verify", "--worker", f"http://127.0.0.1:{rig.workers['one'].port}")
            if verify.child.returncode != 0:
                wrong = f"lately verify ended with {verify.child.returncode}: {verify.tail(3)}"
        except (AssertionError, ServerFailed, subprocess.TimeoutExpired) as exc:
            wrong = str(exc)
        try:
            text, passed = report(minutes, seed, breaking, samples, wrong)
        except ValueError as exc:
            say(f"{exc} {wrong}")
            return 1
    (ROOT / "bench" / "soak.md").write_text(text)
    picture = svg(samples.taken, [at for at, _ in breaking.done], minutes * 60)
    (ROOT / "bench" / "soak.svg").write_text(picture)
    say(text.partition("\n## Faults")[0])
    if passed:
        shutil.rmtree(folder)
        return 0
    say(f"the logs are in {folder}")
    return 1


def say(line: str) -> None:
    """To whoever waits for it."""
    print(line, flush=True)  # noqa: T201


def _alive(process: LocalProcess) -> Callable[[], int | None]:
    return lambda: process.pid if process.is_running else None


def report(minutes: float, seed: int, breaking: Breaking, samples: Samples, wrong: str) -> tuple[str, bool]:
    """bench/soak.md, and whether all of it passed."""
    shop = breaking.rig.shop
    rows, steep = [], []
    for measure, bound in BOUNDS.items():
        for name, points in samples.taken[measure].items():
            if points:
                before, after = samples.quarters(measure, name, breaking.spans)
                flat = bound.holds(before, after)
                judged = name in JUDGED
                if judged and not flat:
                    steep.append(f"{measure} of {name}")
                verdict = "" if not judged else "flat" if flat else "**not flat**"
                most = max(value for _, value in points)
                rows.append(f"| {measure} | {name} | {before:,.0f} | {after:,.0f} | {most:,.0f} | {verdict} |")
    orders, users = breaking.rig.stack.select("SELECT COUNT(*), COUNT(DISTINCT user_id) FROM orders")[0]
    exact = (
        f"Not exact: {wrong}"
        if wrong
        else f"Exact: all purchases of all users ({orders:,} rows, {users} users) and the totals of all products are "
        "what SQL says, asked of both workers over HTTP, and `lately verify` finds no difference."
    )
    passed = not wrong and not steep
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    bounds = "; ".join(f"{name}: {100 * one.part:.0f}% and {one.more:g}" for name, one in BOUNDS.items())
    happened = Counter(name for _, name in breaking.done)
    text = f"""# Soak: {"passed" if passed else "FAILED"}

Made by `make soak` on {datetime.now(timezone.utc):%Y-%m-%d}: {minutes:g} minutes, seed {seed}, on a machine of \
{os.cpu_count()} cores and {memory:.0f} GiB that ran the shop, the broker and the database, too.

- {exact}
- {shop.committed:,} transactions were committed; {sum(shop.refused.values())} failed while the database was away.
- {len(breaking.done)} faults; {sum(breaking.ends.values())} workers ended by themselves and were started again.
- {"Workers and source stayed flat." if not steep else "Not flat: " + ", ".join(steep) + "."}

![memory, file descriptors and disk over time](soak.svg)

| measure | process | third quarter | last quarter | most | |
|---|---|---:|---:|---:|---|
{chr(10).join(rows)}

A sample every {EVERY_S:g} s; medians of the quarters, of samples while nothing was broken. Flat: the last quarter \
has at most so much more than the one before: {bounds}.
A worker that was started again fills its write buffers (16 MiB for each partition of a table) and caches anew, so a \
run of a few minutes says little of memory; half an hour says more.
Broker and database are not judged: `orders` is a log that is kept for ever. The shop has at most {KEEP:,} orders.

## Faults

| fault | times |
|---|---:|
{chr(10).join(f"| {name} | {count} |" for name, count in sorted(happened.items()))}

How workers ended by themselves:

{chr(10).join(f"- {count} x `{text}`" for text, count in breaking.ends.most_common()) or "- none did"}
"""
    return text, passed


if __name__ == "__main__":
    sys.exit(main())
