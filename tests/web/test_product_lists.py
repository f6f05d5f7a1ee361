"""Lists of products of several workers in this process: equal to those of one worker, or clearly partial."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from app.settings import Settings
from local.process import find_free_port
from tests.kit.authentication import ANN, OPERATOR, SECRET, ask
from tests.kit.canned_server import canned_server
from tests.kit.cluster import Cluster, serve_cluster
from tests.kit.event_shop import EventShop
from tests.kit.http_client import Answer
from tests.kit.orders import NOW
from tests.kit.problems import assert_problem
from tests.kit.web import WebServer, serve

#: Most of the tests are one unit, which begins early.
pytestmark = pytest.mark.cost(1)

#: The machine also runs other tests: forwarding may take long.
SETTINGS = replace(Settings(), fallback_per_s=0, forward_ms=10_000)
AWKWARD = [
    "a/b", "a?b=c&d", "50%", "%41", "a+b c", "#1", "..", ".", ";=,", "back\\slash", "\"quoted\" 'name'", "<b>&amp;",
    "tab\tline\nfeed", "\x00\x7f", "cafe\u0301", "caf\u00e9", "\u2028\u202e\ufeff", "\U0001f600", " ", "popular",
    "\uffff",
]  # fmt: skip
PLAIN = [f"Phone {number}" for number in range(20)]
PRODUCTS = [*PLAIN, *AWKWARD]
USERS = [f"user-{number}" for number in range(40)] + ["a/b", "50%", "\u00fcn\u00ef \U0001f600"]


def fill(shop: EventShop) -> None:
    """Users buy products of some categories within three weeks; some purchases are cancelled."""
    dice = random.Random(23)
    with shop.at_once():
        for number in range(60):
            category = dice.choice(["phones", "cases", "zoo", None])
            names = dice.sample(PRODUCTS, dice.choice([1, 2, 3, 12]))
            at = NOW - timedelta(minutes=dice.randrange(30_000), seconds=number)
            shop.buy(*((dice.choice(USERS[number % 3 :: 3]), name) for name in names), category=category, at=at)
            shop.buy(*((USERS[number % len(USERS)], name) for name in names), category=category, at=at)
        for user in USERS[::9]:
            shop.cancel(user, dice.choice(PRODUCTS))


def similar(product: str, query: str = "limit=100") -> str:
    return f"/v1/products/{quote(product, safe='')}/similar?{query}"


def recommendations(user: str, query: str = "limit=100") -> str:
    return f"/v1/users/{quote(user, safe='')}/recommendations?{query}"


def home(user: str) -> str:
    return f"/v1/users/{quote(user, safe='')}/home?limit=50"


#: Names that clients cannot write as a segment of a path.
ADDRESSABLE = [name for name in PRODUCTS if name not in (".", "..")]
LISTS = [
    *(similar(name) for name in ADDRESSABLE),
    *(similar(name, "fallback=none&limit=5") for name in ADDRESSABLE[::3]),
    *(similar(name, "intent=complementary&limit=30") for name in ADDRESSABLE[::4]),
    *(similar(name, f"for_user={quote(USERS[-1], safe='')}&limit=40") for name in ADDRESSABLE[::5]),
    similar("Nothing", "fallback=popular"),
    *(recommendations(user) for user in [*USERS, "nobody"]),
    *(recommendations(user, "exclude=none&limit=9") for user in USERS[::5]),
    *(f"/v1/products/popular?window={window}&limit=100" for window in ("1h", "24h", "7d")),
]


def rows(answer: Answer) -> list[dict]:
    """The rows of a list."""
    return next(value for value in answer.json.values() if isinstance(value, list))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """The only worker of the shop."""
    with serve(tmp_path_factory.mktemp("alone"), SETTINGS) as server:
        fill(EventShop(server))
        yield server


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers of the shop, without copies; tests only read."""
    with serve_cluster(tmp_path_factory.mktemp("three"), SETTINGS, 3, fill) as cluster:
        yield cluster


def assert_answers_are_those_of(alone: WebServer, cluster: Cluster) -> None:
    for path in LISTS:
        expected = alone.get(path)
        assert (expected.status, expected.json["meta"]["complete"]) == (200, True), (path, expected)
        for worker in cluster.workers:
            answer = worker.get(path)
            assert answer.status == 200, (path, answer)
            assert rows(answer) == rows(expected), path
            meta = answer.json["meta"]
            assert (meta["complete"], meta["role"], meta["worker"]) == (True, "active", worker.address), path
            assert answer.headers["ETag"] == expected.headers["ETag"], path


def test_three_workers_answer_every_list_as_one_does(alone: WebServer, three: Cluster):
    assert_answers_are_those_of(alone, three)
    for user in USERS:
        expected = alone.get(home(user)).json
        assert expected["recommendations"], user
        for worker in three.workers:
            answer = worker.get(home(user))
            assert answer.json["recommendations"] == expected["recommendations"], user
            assert answer.json["purchases"] == expected["purchases"], user
            assert answer.json["recommendations_meta"]["complete"] is True
            assert worker.get(f"/users/{quote(user, safe='')}").status == 200
    for product in ADDRESSABLE[::4]:
        pages = {worker.get(f"/products/{quote(product, safe='')}").body for worker in (alone, *three.workers)}
        assert len(pages) == 1, product


@pytest.mark.parametrize(("workers", "partitions"), [(2, 4), (5, 4)])
def test_any_number_of_workers_and_partitions_answers_as_one_worker(
    alone: WebServer, tmp_path: Path, workers: int, partitions: int
):
    with serve_cluster(tmp_path, replace(SETTINGS, partitions=partitions), workers, fill) as cluster:
        assert_answers_are_those_of(alone, cluster)


def test_an_etag_depends_neither_on_the_worker_nor_on_the_age_of_the_list(three: Cluster):
    first, second, _ = three.workers
    for path in (similar("Phone 1"), recommendations(USERS[0]), "/v1/products/popular", home(USERS[1])):
        etag = first.get(path).headers["ETag"]
        first.lists_as_of, second.lists_as_of = 1_700_000_000_000_000, 1_800_000_000_000_000
        try:
            for worker in (first, second):
                answer = worker.get(path)
                meta = answer.json["recommendations_meta"] if "home" in path else answer.json["meta"]
                assert answer.headers["ETag"] == etag
                assert meta["as_of"] is not None or "home" in path
                unchanged = worker.get(path, If_None_Match=etag)
                assert (unchanged.status, unchanged.body, unchanged.headers["ETag"]) == (304, b"", etag)
                assert worker.get(path, If_None_Match='W/"0"').status == 200
        finally:
            first.lists_as_of = second.lists_as_of = None


# -- an owner that does not answer as it should


@contextmanager
def two_workers(folder: Path, settings: Settings = SETTINGS) -> Iterator[tuple[Cluster, WebServer]]:
    """Two workers of the shop, and the one that answers in the tests."""
    with serve_cluster(folder, settings, 2, fill) as cluster:
        yield cluster, cluster.workers[0]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers of the shop for the tests that use `two`."""
    with two_workers(tmp_path_factory.mktemp("two"), SETTINGS) as (cluster, _):
        yield cluster


@pytest.fixture
def two(both: Cluster) -> Iterator[Cluster]:
    """Two workers of the shop; they run on after the test, which may change what they know of each other."""
    known = [copy(worker.ownership.__dict__) for worker in both.workers]
    yield both
    for worker, ownership in zip(both.workers, known, strict=True):
        worker.ownership.__dict__.update(ownership)
        worker.is_sales_complete = None
        worker.log.tracebacks.clear()


def owned(cluster: Cluster, worker: WebServer, keys: list[str]) -> list[str]:
    return [key for key in keys if cluster.owner(key) is worker]


def assert_lists_without(cluster: Cluster, here: WebServer, code: str, alone: WebServer) -> None:
    """Without the neighbours of the other worker's products, lists are partial or a problem, and say so."""
    _, there = cluster.workers
    for product in owned(cluster, there, PLAIN)[:3]:
        answer = here.get(similar(product))
        assert (answer.status, answer.json["meta"]["complete"]) == (200, False), answer
        assert {row["source"] for row in rows(answer)} <= {"category", "popular"}
        assert_problem(here.get(similar(product, "fallback=none")), 503, code)
    for product in owned(cluster, here, PLAIN)[:3]:
        answer = here.get(similar(product))
        assert (rows(answer), answer.json["meta"]["complete"]) == (rows(alone.get(similar(product))), True)
    partial = 0
    for user in owned(cluster, here, USERS)[:8]:
        answer = here.get(recommendations(user))
        assert answer.status == 200, answer
        seeds = here.get(f"/v1/users/{quote(user, safe='')}/product-names").json["product_names"][:10]
        is_whole = not owned(cluster, there, seeds)
        partial += not is_whole
        assert answer.json["meta"]["complete"] is is_whole
        sources = [row["reason"]["with"] for row in rows(answer) if row["source"] == "co-purchase"]
        assert owned(cluster, here, sources) == sources
        both = here.get(home(user))
        assert (both.status, both.json["recommendations_meta"]["complete"]) == (200, is_whole)
        assert here.get(f"/users/{quote(user, safe='')}").status == 200
    assert partial > 3
    popular = here.get("/v1/products/popular")
    assert (popular.status, popular.json["meta"]["complete"]) == (200, True)
    assert rows(popular) == rows(alone.get("/v1/products/popular"))
    assert here.log.tracebacks == []


def test_without_the_owner_lists_are_partial_and_name_the_missing_owner(alone: WebServer, tmp_path: Path):
    with two_workers(tmp_path) as (cluster, here):
        cluster.workers[1].stop_listening()
        assert_lists_without(cluster, here, "owner-away", alone)
        for user in owned(cluster, cluster.workers[1], USERS)[:3]:
            for path in (recommendations(user), home(user), similar("Phone 1", f"for_user={quote(user, safe='')}")):
                assert_problem(here.get(path), 503, "owner-away")


def test_a_partition_without_an_owner_is_away(alone: WebServer, two: Cluster):
    here, there = two.workers
    two.replace(there, None)
    assert_lists_without(two, here, "owner-away", alone)


def test_while_the_owner_recovers_the_reason_is_recovering(alone: WebServer, two: Cluster):
    here, there = two.workers
    there.ownership.is_worker_ready, there.is_sales_complete = False, True
    assert_lists_without(two, here, "recovering", alone)
    assert_problem(here.get(recommendations(owned(two, there, USERS)[0])), 503, "recovering")


def test_an_owner_that_has_lost_its_partitions_is_away_and_nothing_recovers(alone: WebServer, two: Cluster):
    here, there = two.workers
    # The assignment has reached it before it has reached this worker.
    there.ownership.others = dict.fromkeys(range(SETTINGS.partitions), here.address)
    assert_lists_without(two, here, "owner-away", alone)


def test_a_frozen_owner_delays_a_list_by_the_timeout_only(tmp_path: Path):
    with two_workers(tmp_path, replace(SETTINGS, forward_ms=300)) as (cluster, here):
        there = cluster.workers[1]
        there.freeze()
        product, user = owned(cluster, there, PLAIN)[0], owned(cluster, here, USERS)[0]
        for path in (similar(product), recommendations(user), home(user)):
            began = time.monotonic()
            assert here.get(path).status == 200
            assert time.monotonic() - began < 2
        assert_problem(here.get(similar(product, "fallback=none")), 503, "owner-away")
        there.thaw()


def found(fields: dict[str, object]) -> dict:
    """The content of /v1/common-buyers with one product."""
    product = {"product_name": "another", "neighbours": {"x": 1}, "role": "active", **fields}
    return {"products": [product], "recovering": []}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(404, {"code": "not-found"}, id="an earlier version"),
        pytest.param(500, {"code": "internal-error"}, id="an error"),
        pytest.param(429, {"code": "rate-limited"}, id="a limit"),
        pytest.param(200, b"", id="nothing"),
        pytest.param(200, b"\xff\x00<html>", id="not JSON"),
        pytest.param(200, b'{"products": [', id="half of it"),
        pytest.param(200, b"[" * 100_000, id="deep"),
        pytest.param(200, b"null", id="null"),
        pytest.param(200, {"products": None}, id="no list"),
        pytest.param(200, found({"product_name": 7}), id="a number for a name"),
        pytest.param(200, b'{"products":[],"recovering":[],"x":' + b"[" * 100_000, id="deep where nothing is read"),
        pytest.param(200, b'{"products":[],"recovering":["\xff"]}', id="a text that is not UTF-8"),
        pytest.param(200, {"products": [], "recovering": [], "extra": 1}, id="no product"),
        pytest.param(200, found({}), id="another product"),
    ],
)
def test_an_owner_that_answers_nonsense_is_no_error_of_this_worker(
    alone: WebServer, two: Cluster, status: int, body: object
):
    here, there = two.workers
    with canned_server() as canned:
        two.replace(there, canned.address)
        canned.status, canned.body = status, body if isinstance(body, bytes) else json.dumps(body).encode()
        assert_lists_without(two, here, "owner-away", alone)
        for user in owned(two, there, USERS)[:3]:
            answer = here.get(recommendations(user))
            assert_problem(answer, 503, "owner-away")
            assert_problem(here.get(similar("Phone 1", f"for_user={quote(user, safe='')}")), 503, "owner-away")
        assert canned.paths


@pytest.mark.parametrize(
    "neighbours",
    [
        pytest.param({"Phone 1": "many"}, id="a text for a count"),
        pytest.param({"Phone 1": 1.5}, id="a fraction for a count"),
        pytest.param({"Phone 1": 10**400}, id="a count that is no float"),
        pytest.param({"Phone 1": 2**80}, id="a count of 81 bits"),
        pytest.param({f"n{number}": 1 for number in range(1_001)}, id="too many neighbours"),
        pytest.param([["Phone 1", 1]], id="a list"),
    ],
)
def test_neighbours_that_no_worker_counts_are_not_used(alone: WebServer, two: Cluster, neighbours: object):
    here, there = two.workers
    with canned_server() as canned:
        two.replace(there, canned.address)
        products = owned(two, there, PRODUCTS)
        products = [found({"product_name": name, "neighbours": neighbours})["products"][0] for name in products]
        canned.body = json.dumps({"products": products, "recovering": []}).encode()
        assert_lists_without(two, here, "owner-away", alone)


# -- copies


def test_copies_on_this_worker_and_on_others_replace_the_owner(alone: WebServer, tmp_path: Path):
    with serve_cluster(tmp_path, SETTINGS, 3, fill, {0: [2], 1: [0]}) as cluster:
        first, second, third = cluster.workers
        away = owned(cluster, third, PLAIN)
        third.stop_listening()
        for worker in (first, second):
            for product in away:
                answer = worker.get(similar(product))
                assert rows(answer) == rows(alone.get(similar(product))), product
                meta = answer.json["meta"]
                assert (meta["complete"], meta["role"], meta["worker"]) == (True, "standby", worker.address)
            for product in owned(cluster, worker, PLAIN):
                assert worker.get(similar(product)).json["meta"]["role"] == "active"
        for user in owned(cluster, second, USERS):
            for path in (recommendations(user), home(user)):
                answer, expected = second.get(path), alone.get(path)
                name = "recommendations"
                assert answer.json[name] == expected.json[name], path
        # Only the owner of the user's purchases has them: there is a copy on the first worker.
        for user in owned(cluster, third, USERS):
            answer = first.get(recommendations(user))
            assert rows(answer) == rows(alone.get(recommendations(user)))
            assert answer.json["meta"]["role"] == "standby"
            assert_problem(second.get(recommendations(user)), 503, "owner-away")


def test_a_copy_that_lags_is_not_used(tmp_path: Path):
    with serve_cluster(tmp_path, replace(SETTINGS, forward_ms=2_000), 3, fill, {0: [2], 1: [2]}) as cluster:
        first, second, third = cluster.workers
        third.stop_listening()
        product = owned(cluster, third, PLAIN)[0]
        first.ownership.caught_up = frozenset()
        assert first.get(similar(product)).json["meta"]["role"] == "standby", "the second worker has a copy"
        second.ownership.caught_up = frozenset()
        assert_problem(first.get(similar(product, "fallback=none")), 503, "owner-away")


def test_copies_that_lag_are_waited_for_at_once(tmp_path: Path):
    def fill_all(shop: EventShop) -> None:
        shop.buy(*((user, name) for user in USERS for name in PLAIN[:10]))

    with serve_cluster(tmp_path, replace(SETTINGS, forward_ms=1_000), 2, fill_all) as cluster:
        here, there = cluster.workers
        there.stop_listening()
        here.ownership.lagging = frozenset(cluster.partitions(there))
        assert len(owned(cluster, there, PLAIN[:10])) >= 4
        began = time.monotonic()
        answer = here.get(recommendations(owned(cluster, here, USERS)[0]))
        assert (answer.status, answer.json["meta"]["complete"]) == (200, False)
        assert time.monotonic() - began < 3


def test_a_second_copy_is_used_if_the_worker_with_the_first_is_away_too(alone: WebServer, tmp_path: Path):
    with serve_cluster(tmp_path, SETTINGS, 4, fill, {1: [3], 2: [3]}) as cluster:
        first, second, third, fourth = cluster.workers
        fourth.stop_listening()
        product = owned(cluster, fourth, PLAIN)[0]
        for away, other in ((second, third), (third, second)):
            caught_up, away.ownership.caught_up = away.ownership.caught_up, frozenset()
            answer = first.get(similar(product))
            assert (answer.json["meta"]["complete"], answer.json["meta"]["role"]) == (True, "standby"), other.address
            assert rows(answer) == rows(alone.get(similar(product)))
            away.ownership.caught_up = caught_up


def test_a_user_whose_owner_is_away_is_left_out_as_their_copy_or_mysql_says(alone: WebServer, tmp_path: Path):
    settings = replace(SETTINGS, fallback_per_s=100, mysql_host="127.0.0.1", mysql_port=find_free_port())
    with serve_cluster(tmp_path, settings, 2, fill, {0: [1]}) as cluster:
        here, there = cluster.workers
        user = owned(cluster, there, USERS)[0]
        product = owned(cluster, here, PLAIN)[0]
        path = similar(product, f"for_user={quote(user, safe='')}&limit=100")
        expected = rows(alone.get(path))
        assert expected != rows(alone.get(similar(product))), "the user has bought something of the list"
        answer = here.get(path)
        assert (rows(answer), answer.json["meta"]["role"]) == (expected, "active")
        there.stop_listening()
        answer = here.get(path)
        assert (rows(answer), answer.json["meta"]["role"]) == (expected, "standby")
        here.ownership.caught_up = frozenset()
        # No database answers at the address of the settings.
        assert_problem(here.get(path), 503, "owner-away")


def test_a_worker_that_still_reads_the_sales_answers_as_another_does(three: Cluster, alone: WebServer):
    here, there, third = three.workers
    here.is_sales_complete = False
    try:
        for path in ("/v1/products/popular", similar("Phone 3"), *(recommendations(user) for user in USERS[:12])):
            answer = here.get(path)
            assert answer.status == 200, (path, answer)
            assert rows(answer) == rows(alone.get(path)), path
            assert answer.json["meta"]["worker"] in (there.address, third.address)
        there.is_sales_complete = third.is_sales_complete = False
        for path in ("/v1/products/popular", similar("Phone 3"), recommendations(USERS[0])):
            assert_problem(here.get(path), 503, "recovering")
        answer = here.get(home(USERS[0]))
        assert (answer.status, answer.json["recommendations"], answer.json["recommendations_meta"]) == (200, None, None)
    finally:
        here.is_sales_complete = there.is_sales_complete = third.is_sales_complete = None


# -- names


@pytest.mark.parametrize("length", [255, 1_024])
def test_ten_seeds_with_names_of_four_byte_characters_are_read_from_their_owner(tmp_path: Path, length: int):
    names = [chr(0x1F600 + number) * length for number in range(12)]

    def fill_long(shop: EventShop) -> None:
        # Each user has ten seeds; two products of the others are recommended.
        for number in range(6):
            shop.buy(*((f"user-{number}", name) for name in names[number:] + names[: max(0, number - 2)]))
        shop.buy(*(("ten", name) for name in names[:10]))

    with serve(tmp_path / "alone", SETTINGS) as alone, serve_cluster(tmp_path, SETTINGS, 2, fill_long) as cluster:
        fill_long(EventShop(alone))
        for worker in cluster.workers:
            answer = worker.get(recommendations("ten"))
            assert (answer.status, answer.json["meta"]["complete"]) == (200, True)
            assert rows(answer) == rows(alone.get(recommendations("ten")))
            assert {row["product_name"] for row in rows(answer) if row["source"] == "co-purchase"} == set(names[10:])


# -- the routes for other workers


def common_buyers(*names: str) -> str:
    return "/v1/common-buyers?" + "&".join(f"product_name={quote(name, safe='')}" for name in names)


def test_common_buyers_are_those_of_the_owners_and_are_forwarded_once(three: Cluster, alone: WebServer):
    here = three.workers[0]
    names = PRODUCTS[:10]
    expected = alone.get(common_buyers(*names)).json
    assert [product["product_name"] for product in expected["products"]] == names
    for worker in three.workers:
        assert worker.get(common_buyers(*names)).json == expected
        forwarded = worker.get(common_buyers(*names), Lately_Hop="1").json["products"]
        assert [product["product_name"] for product in forwarded] == owned(three, worker, names)
    assert (
        here.get(common_buyers("nothing", "nothing")).json["products"]
        == [{"product_name": "nothing", "neighbours": {}, "role": "active"}] * 2
    )
    for name in AWKWARD:
        (product,) = here.get(common_buyers(name)).json["products"]
        assert product["product_name"] == name


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/common-buyers", "invalid-product-name"),
        ("/v1/common-buyers?product_name=", "invalid-product-name"),
        ("/v1/common-buyers?product_name=%ff", "invalid-product-name"),
        (f"/v1/common-buyers?product_name={'x' * 1_025}", "invalid-product-name"),
        (common_buyers(*PRODUCTS[:11]), "invalid-parameter"),
        (common_buyers("Phone 1", "") + "&limit=1", "unknown-parameter"),
        ("/v1/common-buyers?product=Phone", "unknown-parameter"),
        ("/v1/users/ann/product-names?limit=1", "unknown-parameter"),
        ("/v1/users//product-names", "invalid-user-id"),
        ("/v1/users/%00/product-names", "invalid-user-id"),
        ("/v1/users/%ff/product-names", "invalid-user-id"),
    ],
)
def test_wrong_parameters_of_the_routes_for_workers_are_named(three: Cluster, path: str, code: str):
    for worker in three.workers:
        assert_problem(worker.get(path), 400, code)


def test_the_product_names_of_a_user_are_the_same_on_every_worker(three: Cluster, alone: WebServer):
    for user in [*USERS, "nobody"]:
        path = f"/v1/users/{quote(user, safe='')}/product-names"
        expected = alone.get(path).json
        assert (expected["user_id"], expected["role"]) == (user, "active")
        bought = alone.get(f"/v1/users/{quote(user, safe='')}/purchases?limit=100").json["purchases"]
        assert expected["product_names"] == [*dict.fromkeys(row["product_name"] for row in bought)]
        for worker in three.workers:
            assert worker.get(path).json == expected


def test_a_users_token_reads_the_product_names_of_no_other_user(tmp_path: Path):
    settings = replace(SETTINGS, auth="token", token_secret=SECRET)

    def fill_two(shop: EventShop) -> None:
        shop.buy(*((user, name) for user in ("ann", "bob") for name in PLAIN[:8]), ("bob", "Secret"))

    with serve_cluster(tmp_path, settings, 3, fill_two) as cluster:
        for worker in cluster.workers:
            for path in (
                "/v1/users/bob/product-names", "/v1/users/b%6Fb/product-names", recommendations("bob"), home("bob"),
                similar("Phone 1", "for_user=bob"), similar("Phone 1", "for_user=ann&for_user=bob"),
                "/v1/users/ann/product-names?for_user=bob", "/v1/common-buyers?product_name=Phone&for_user=bob",
                "/v1/common-buyers?product_name=Phone&user_id=bob",
            ):  # fmt: skip
                assert_problem(ask(worker, path, ANN), 403, "not-your-data")
                assert_problem(ask(worker, path, ANN, Lately_Hop="1"), 403, "not-your-data")
                assert_problem(ask(worker, path, None, Lately_Hop="1"), 401, "token-needed")
                assert ask(worker, path, OPERATOR).status != 403
            # The token of the request also counts on the workers that it is forwarded to.
            for path in (
                "/v1/users/ann/product-names", recommendations("ann"), home("ann"), similar("Phone 1", "for_user=ann"),
                "/v1/products/popular",
            ):  # fmt: skip
                answer = ask(worker, path, ANN)
                assert answer.status == 200, (path, answer)
                assert "Secret" not in answer.text or "product-names" not in path
                assert '"complete":false' not in answer.text
