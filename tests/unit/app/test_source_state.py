"""Records of the topic source-state: their keys and field names are read by other versions of
Lately.
"""

import json

import pytest

from app.control import source_state
from app.control.source_state import (
    AppIdentity,
    CaptureState,
    CopyProgress,
    Generation,
    LeaderStatus,
    ShopIdentity,
    SnapshotRequest,
    SnapshotState,
    SourceProblem,
    SourceStates,
    State,
    TopicLayout,
    VerifyResult,
    WatermarkState,
)

STATES: dict[str, tuple[State, dict[str, object]]] = {
    "status": (
        LeaderStatus(
            mode="watermark", guarantee="timed", reasons=("a replica",), unseen_changes=("changed", "removed"), as_of=1,
            offsets={0: 2}, oldest_pending_s=0.5, written_at=3, leader="host:1",
            problems=(SourceProblem("definer", "it is gone"),), highest_version=7,
        ),
        {
            "mode": "watermark", "guarantee": "timed", "reasons": ["a replica"], "unseen": ["changed", "removed"],
            "as_of": 1, "offsets": {"0": 2}, "oldest_pending_s": 0.5, "at": 3, "leader": "host:1",
            "problems": [{"kind": "definer", "message": "it is gone"}], "highest_version": 7,
        },
    ),
    "snapshot": (
        SnapshotState(
            table="shop.orders", version=1, since="2026-01-31 00:00:00.000000", where="price > 1", last_key=["a", 2],
            rows=3, is_done=True, horizon=None, request_at=4, fulfilled_at=5,
        ),
        {
            "table": "shop.orders", "version": 1, "since": "2026-01-31 00:00:00.000000", "where": "price > 1",
            "after": ["a", 2], "rows": 3, "done": True, "horizon": None, "wanted": 4, "granted": 5,
        },
    ),
    "identity": (
        AppIdentity(cluster="c", orders="a-orders", format=1, is_adopted=True),
        {"cluster": "c", "orders": "a-orders", "format": 1, "is_adopted": True},
    ),
    "shop": (
        ShopIdentity(server="uuid", table="shop.orders", outbox="token"),
        {"server": "uuid", "table": "shop.orders", "outbox": "token"},
    ),
    "watermark": (
        WatermarkState(table="shop.orders", low=1, version=2),
        {"table": "shop.orders", "low": 1, "version": 2},
    ),
    "capture": (
        CaptureState(
            table="shop.orders", server="uuid", first_version=1, created={"insert": "2026-01-31"}, missed_since=2,
            missed_until=3, restored_at=4, highest_version=5,
        ),
        {
            "table": "shop.orders", "server": "uuid", "first_version": 1, "created": {"insert": "2026-01-31"},
            "missed_since": 2, "missed_until": 3, "restored_at": 4, "highest_version": 5,
        },
    ),
    "verified": (
        VerifyResult(began_at=2, clean_at=1, differences={"missing": 3}),
        {"at": 2, "clean_at": 1, "differences": {"missing": 3}},
    ),
    "snapshot-wanted": (SnapshotRequest(requested_at=1, reason="a lost disk"), {"at": 1, "why": "a lost disk"}),
    "layout": (
        TopicLayout(
            partitions=6, predecessor=Generation(1, 4), active_since=5, successor=Generation(3, 8), is_abandoned=True
        ),
        {"partitions": 6, "before": [1, 4], "since": 5, "after": [3, 8], "given_up": True},
    ),
    "copied": (
        CopyProgress(offsets={0: 3}, events=2, has_dead_letters=True),
        {"offsets": {"0": 3}, "events": 2, "letters": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", STATES)
def test_a_state_keeps_its_key_and_field_names_in_the_topic(key: str):
    state, document = STATES[key]
    record_key, value = source_state.encode(state)
    assert record_key.decode() == key
    assert json.loads(value) == document
    assert source_state.decode(record_key, value) == state


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"unknown", b"{}"), (None, b"{}"), (b"status", None), (b"status", b"not JSON"), (b"layout", b"{}")],
)
def test_a_record_of_another_version_is_ignored(key: bytes | None, value: bytes | None):
    assert source_state.decode(key, value) is None


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("verified", {"clean_at": 2**62}), ("verified", {"at": -1}), ("status", {"as_of": 2**60}),
        ("status", {"guarantee": "proved"}), ("status", {"offsets": {"-1": 0}}), ("status", {"leader": "x" * 10_001}),
        ("snapshot", {"after": [{"hex": "00' UNION SELECT 1 -- -"}]}), ("snapshot", {"after": [{"hex": "0"}]}),
        ("snapshot", {"after": [1.5]}), ("snapshot", {"after": []}), ("snapshot", {"after": [["a"]]}),
        ("snapshot", {"since": "2026-01-31' OR 1=1 -- -"}), ("snapshot", {"since": "2026-01-31 00:00:00.000000\n"}),
        ("capture", {"missed_since": 2**61}), ("layout", {"partitions": -1}), ("copied", {"offsets": {"0": -1}}),
    ],
)  # fmt: skip
def test_a_value_that_lately_never_writes_is_ignored(key: str, changed: dict[str, object]):
    document = STATES[key][1] | changed
    assert source_state.decode(key.encode(), json.dumps(document).encode()) is None


def test_the_newest_state_of_each_kind_is_valid():
    states = SourceStates()
    for version in (1, 2):
        states.update(WatermarkState(table="shop.orders", low=version, version=version))
    states.update(SnapshotRequest(requested_at=1))
    assert states == SourceStates(
        watermark=WatermarkState(table="shop.orders", low=2, version=2), request=SnapshotRequest(requested_at=1)
    )
