"""Writes valid samples of every decoder to `corpus`: python -m tests.fuzz.make_corpus.

Existing files stay as they are: values of earlier versions have to remain readable.
"""

from __future__ import annotations

import gzip
import tempfile
import zlib
from decimal import Decimal
from pathlib import Path

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.assignor.client_assignment import ClientAssignment

from app import tokens
from app.control import source_state
from app.control.source_state import (
    AppIdentity,
    BinaryKey,
    CaptureState,
    CopyProgress,
    Generation,
    LeaderStatus,
    ShopIdentity,
    SnapshotRequest,
    SnapshotState,
    SourceProblem,
    TopicLayout,
    VerifyResult,
    WatermarkState,
)
from chunks.assignor import AssignmentInfo
from chunks.group_metadata import SubscriptionInfo
from commands.tables.dump_file import FORMAT, DumpHead, PairsFrame, PartitionSummary, RecordsFrame, open_dump
from domain import co_purchases, product_history, purchases, totals
from domain.co_purchases import BasketOverflow, DeltaAccumulator
from domain.digests import PartitionDigest
from domain.events import REMOVED, SNAPSHOT, Event
from domain.totals import Totals
from domain.values import HOUR_US
from tests.kit.authentication import SECRET
from tests.kit.fuzz import CORPUS
from tests.kit.makers import erasure, event, row, wire
from web.http import cursor

#: Names that are long, or not ASCII.
USER, PRODUCT = "anaïs 😀", "Türkçe kahve ☕"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
AT = 1_770_000_000_000_000
HOUR = AT // HOUR_US
CHANGE = ("ann", "tea", "drinks", AT, "19.90", 1)


def build() -> dict[str, bytes]:
    """Return path below `corpus` -> content."""
    return {
        **_events(), **_states(), **_members(), **_purchases(), **_totals(), **_co_purchases(), **_dump(), **_http(),
        **_dead_letters(), **_settings(),
    }  # fmt: skip


def _events() -> dict[str, bytes]:
    removed = event(REMOVED, user_id=USER, product_name=PRODUCT, order_id=7, payment_method=None, version=2**62)
    samples: dict[str, Event] = {
        "placed": event(traceparent=TRACEPARENT, category="drinks"),
        "removed": removed,
        "snapshot": event(SNAPSHOT, price="0.0000000001"),
        "erased": erasure(5),
    }
    return {
        **{f"event/{name}.json": wire(sample)[1] for name, sample in samples.items()},
        "outbox_row/columns.json": row().payload.encode(),
        "outbox_row/other.json": row(user_id=USER, order_id=9, price="1e2", category="x").payload.encode(),
        "outbox_row/numbers.json": row(price=19.9, order_id=2**63, payment_method=None).payload.encode(),
    }


def _states() -> dict[str, bytes]:
    states = [
        LeaderStatus(
            mode="outbox", guarantee="timed", reasons=("a replica",), unseen_changes=("cascade",), as_of=AT,
            offsets={0: 3, 1: 0}, oldest_pending_s=0.25, problems=(SourceProblem("trigger", "it is missing"),),
            highest_version=9, written_at=AT, leader="source-1",
        ),
        SnapshotState(
            table="shop.orders", version=7, since="2026-01-31 00:00:00.000000", where="price > 0",
            last_key=[5, "o-1", BinaryKey("00ff")], rows=12, request_at=AT,
        ),
        WatermarkState(table="shop.orders", low=-1, version=0),
        CaptureState(table="shop.orders", server="db", created={"insert": "2026-01-31"}, missed_since=AT),
        VerifyResult(began_at=AT, clean_at=AT, differences={"missing": 1}),
        SnapshotRequest(requested_at=AT, reason="lost"),
        TopicLayout(partitions=8, predecessor=Generation(1, 4), active_since=AT, successor=Generation(3, 16)),
        CopyProgress(offsets={0: 10}, events=5, has_dead_letters=True),
        AppIdentity(cluster="5L6g3nShT-eMCtK--X86sw", orders="orders", is_adopted=True),
        ShopIdentity(server="db", table="shop.orders", outbox="6ccd780c"),
    ]  # fmt: skip
    # Key and value of a record in one sample.
    records = [source_state.encode(state) for state in states]
    return {f"state/{key.decode()}.json": key + b"\n" + value for key, value in records}


def _members() -> dict[str, bytes]:
    owners = {"http://a:6066": {"app-by_user-changelog": [0, 2]}, "http://[::1]:6067": {"app-by_user-changelog": [1]}}
    subscription = SubscriptionInfo(
        "http://a:6066", "s" * 64, {"orders": [0]}, {"app-by_user-changelog": [1]}, ["app-by_user-changelog"],
        {"app-by_user-changelog": {0: 5}}, {"app-by_user-changelog": {0: 7}}, {"app-by_user-changelog": [1]},
    )  # fmt: skip
    info = AssignmentInfo(
        assignment=ClientAssignment(actives={"orders": [0]}, standbys={"app-by_user-changelog": [1]}),
        url="http://a:6066", changelog_distribution=owners, external_topic_distribution={},
        topic_groups={"orders": 0}, warming={"app-by_user-changelog": [1]}, standby_distribution=owners,
        signatures={"http://a:6066": "s" * 64},
    )  # fmt: skip
    user_data = msgspec.json.encode(subscription)
    return {
        "subscription/full.zlib": zlib.compress(user_data),
        "subscription/small.zlib": zlib.compress(b'{"url":"https://a"}'),
        "subscription_json/full.json": user_data,
        "distribution_json/full.json": info.dumps(),
        "metadata/full.bin": ConsumerProtocolMemberMetadata(4, ["orders"], zlib.compress(user_data)).encode(),
        "metadata/empty.bin": ConsumerProtocolMemberMetadata(0, [], b"").encode(),
        "assignment/full.bin": ConsumerProtocolMemberAssignment(
            4, [("orders", [0, 1]), ("app-by_user-changelog", [0])], zlib.compress(info.dumps())
        ).encode(),
        "assignment/empty.bin": ConsumerProtocolMemberAssignment(0, [], b"").encode(),
    }


def _purchases() -> dict[str, bytes]:
    overflow: dict[bytes, bytes | None] = {}
    value, user = None, b"ann"
    for number in range(6):
        placed = event(order_id=number, product_name=PRODUCT, version=number, category="drinks")
        value = purchases.apply_event(
            user, value, placed, number, overflow.get, overflow.__setitem__, max_entries=4, trim_to=2, price_changes=[]
        )
    assert value is not None
    one = purchases.apply_event(user, None, event(), 0, overflow.get, overflow.__setitem__, 4, 2, [])
    pairs = [(key, entry) for key, entry in overflow.items() if entry is not None]
    return {
        "by_user/one.msgpack": one,
        "by_user/floor.msgpack": value,
        "by_user/erased.msgpack": purchases.erase(user, one, 5, [], overflow.__setitem__, []),
        "by_user/former_format.msgpack": b"\x93\x02\xc0\x90",
        "by_user_overflow/entry.msgpack": pairs[0][1],
    }


def _totals() -> dict[str, bytes]:
    some = Totals(3, Decimal("59.700"))
    record = totals.encode_partial(PRODUCT, 2, 17, some)
    return {
        "product_partials/some.msgpack": totals.encode_totals(some),
        "product_partials/negative.msgpack": totals.encode_totals(Totals(-1, Decimal("-0.10"))),
        "product_partials_topic/some.msgpack": record,
        "by_product/some.msgpack": totals.merge_partials(None, [totals.decode_partial(record)]),
    }


def _co_purchases() -> dict[str, bytes]:
    def no_scan() -> list[tuple[str, bytes]]:
        return []

    written: dict[str, bytes | None] = {}
    overflow = BasketOverflow(written.get, written.__setitem__, no_scan)
    changes = [(*CHANGE[:1], f"tea {number}", *CHANGE[2:3], AT + number, *CHANGE[4:]) for number in range(6)]
    basket, before, after = co_purchases.apply_changes(None, changes, overflow, cap=2, spare=2)
    accumulator = DeltaAccumulator()
    accumulator.add_changes(changes)
    accumulator.add_basket_change(before, after)
    delta = next(value for _, value in accumulator.drain_records())
    sales = co_purchases.apply_delta(None, co_purchases.decode_delta(delta), HOUR)
    assert basket is not None
    return {
        "purchase_changes/some.msgpack": next(co_purchases.encode_changes(changes)),
        "baskets/some.msgpack": basket,
        "baskets_overflow/line.msgpack": next(value for value in written.values() if value),
        "co_purchases/delta.msgpack": delta,
        "similar/sales.msgpack": co_purchases.encode_sales(sales),
        "similar_pairs/count.msgpack": co_purchases.add_pair_count(None, 300) or b"",
        "product_sales/extract.msgpack": co_purchases.encode_extract(sales),
        "product_history/some.msgpack": product_history.add_purchases(None, [(AT, "1.00", 2), (AT, "2", -1)], HOUR),
    }


def _dump() -> dict[str, bytes]:
    pairs = [(b"ann", b"1" * 50), (b"bob", b"2")]
    digest = PartitionDigest("by_user")
    for pair in pairs:
        digest.add(*pair)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dump"
        with open_dump(path) as writer:
            part = PartitionSummary("by_user", 0, 7, len(pairs), digest.hexdigest())
            writer.put(DumpHead(FORMAT, "shop", 1, "2026-01-31T00:00:00Z", [part]))
            writer.put(PairsFrame("by_user", 0, pairs))
            writer.put(RecordsFrame("purchase_changes", 0, [(None, b"x", [("name", b"1")])]))
        content = path.read_bytes()
    return {"dump/small.gz": content, "dump_frames/small.bin": gzip.decompress(content)}


def _http() -> dict[str, bytes]:
    position = product_history.HistoryPosition((AT, "19.90"), 1)
    return {
        "cursor/history.txt": cursor.write(b"k" * 32, ("ann", 5), position).encode(),
        "token/ann.txt": tokens.create_token(SECRET, user="ann").encode(),
        "token/operator.txt": tokens.create_token(SECRET, operator=True, audience="lately").encode(),
        "token/hop.txt": tokens.create_hop_token(SECRET, tokens.Caller("ann", True, 2**31)).encode(),
        "accept/browser.txt": b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
        "accept/json.txt": b"application/json; charset=utf-8; q=0.500, text/*;q=0",
        "etag/list.txt": b'W/"6fd4e2", "other", *',
        "etag/weak.txt": b'W/"0123456789abcdef01234567"',
        "traceparent/sampled.txt": TRACEPARENT.encode(),
        "time/fraction.txt": b"2026-01-31T08:00:00.123456789+05:30",
        "time/utc.txt": b"2026-01-31T08:00:00Z",
    }


def _dead_letters() -> dict[str, bytes]:
    # A name and a value per line.
    letter = [
        b"__lately.errors.exception=broken-rule", b"__lately.errors.message=price must be a number",
        b"__lately.errors.topic=orders", b"__lately.errors.partition=0", b"__lately.errors.offset=17",
        b"__lately.errors.first_failed_at=2026-01-31T08:00:00Z",
    ]  # fmt: skip
    return {
        "dead_letter/letter.txt": b"\n".join(letter),
        "dead_letter/settled.txt": b"lately.settled=17\nlately.done=retried",
    }


def _settings() -> dict[str, bytes]:
    values = {
        "LATELY_KAFKA": "kafka-1:9093,[::1]:9092", "LATELY_ID": "shop", "LATELY_AUTH": "token",
        "LATELY_TOKEN_SECRET": "x" * 16, "LATELY_SIGNING_KEY": "y" * 16, "LATELY_REPORT_TZ": "Europe/Berlin",
        "LATELY_SOURCE_COLUMNS": "user_id=customer,price=amount,traceparent=trace", "LATELY_STUCK_S": "60",
        "LATELY_SOURCE_OUTBOX": "shop_lately.purchase_outbox", "LATELY_SOURCE_DEFINER": "lately@localhost",
        "LATELY_PARTITIONS": "12", "LATELY_AGENTS": "by_user,similar", "LATELY_FALLBACK_PER_S": "20",
    }  # fmt: skip
    texts = {f"settings/{name.lower()}.txt": f"{name}={text}".encode() for name, text in values.items()}
    return {**texts, "settings/all.txt": "\n".join(f"{name}={text}" for name, text in values.items()).encode()}


def main() -> None:
    """Write the samples that do not exist."""
    for name, content in build().items():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)


if __name__ == "__main__":
    main()
