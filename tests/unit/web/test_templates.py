"""The templates read attributes that the objects of the worker have: no type checker sees them."""

from __future__ import annotations

import pytest

from app.control.source_state import SnapshotState
from app.services.progress import PartitionProgress
from chunks import RestoreProgress
from web.pages import render

PROGRESS = [PartitionProgress("orders", 0, 5, 7, 1.5), PartitionProgress("orders", 1, 3, None, None)]


def render_operator_page(**values: object) -> str:
    """The page of a worker with two partitions, with `values` in place of these."""
    defaults: dict[str, object] = {
        "worker": "http://a:1", "state": "ready", "workers": [("http://a:1", [0, 1]), ("http://b:1", [2])],
        "topics": [("orders", PROGRESS)], "standbys": [("by_user", 2, 1234)], "requests": 12.3,
        "recovery": RestoreProgress(total=10, done=10, started=0.0, ended=2.0),
        "dead": [("malformed-json", 1, "3 min")], "dead_complete": True, "dead_more": False,
        "dead_topic": "orders-dead", "source": {"Mode": "outbox"}, "snapshot": None, "every_ms": 2000,
    }  # fmt: skip
    return render("operator.html", **{**defaults, **values})


@pytest.mark.parametrize(
    ("snapshot", "text"),
    [
        (None, "none: run <code>lately source snapshot</code>"),
        (SnapshotState(table="orders", version=1, rows=1234, is_done=True), "done, 1,234 rows"),
        (SnapshotState(table="orders", version=1, rows=5), "unfinished, 5 rows so far"),
    ],
)
def test_the_operator_page_shows_the_snapshot(snapshot: SnapshotState | None, text: str):
    assert text in render_operator_page(snapshot=snapshot)


def test_the_operator_page_shows_positions_rates_and_unknown_values():
    page = render_operator_page()
    assert '<tr><td class="number">0</td><td class="number">5</td><td class="number">7</td>' in page
    assert '<td class="number">unknown</td><td class="number">unknown</td></tr>' in page
    assert "10 of 10 changelog records read in 2.0 s, 5 per second." in page
    assert '<td>by_user</td><td class="number">2</td><td class="number">1,234</td>' in page
    assert "http://a:1 (this worker)</td><td>0, 1</td>" in page
    assert '<a href="http://b:1/operator">http://b:1</a></td><td>2</td>' in page


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "Records in orders-dead that are neither retried nor dropped. <code>lately dlq list</code> lists them."),
        ({"dead_more": True}, "dropped; more exist."),
        ({"dead_complete": False}, "dropped; the topic is still being read."),
        ({"dead": []}, "No open dead letters."),
        ({"dead": [], "dead_complete": False}, "The topic is being read."),
    ],
)
def test_the_operator_page_shows_the_open_dead_letters(values: dict[str, object], text: str):
    assert text in render_operator_page(**values)


def test_the_operator_page_of_a_worker_without_source_and_partitions_says_so():
    page = render_operator_page(source=None, topics=[], workers=[], standbys=[])
    assert "No source has run yet: start <code>lately source</code>." in page
    assert "None: the group has not assigned any partition yet." in page
    assert "None: the group has more workers than partitions." in render_operator_page(topics=[])
