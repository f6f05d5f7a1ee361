"""The sources of a response, of two workers in this process: the table, the owner, a standby copy, MySQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from app.settings import Settings
from domain.partitioning import partition_of
from local.process import find_free_port
from tables.product_sales import SalesCopy
from tests.kit.event_shop import EventShop
from tests.kit.ownership import FixedOwnership
from tests.kit.problems import assert_problem
from tests.kit.streams import open_stream, order_ids
from tests.kit.web import WebServer, serve

NOW = datetime(2026, 1, 31, 12)
#: Both workers share the machine with other tests: forwarding may take long.
SETTINGS = replace(Settings(), heartbeat_s=1, fallback_per_s=0, forward_ms=10_000)
USERS = [f"user-{number}" for number in range(40)]
PRODUCTS = [f"Phone-{number}" for number in range(40)]
#: The partitions of the second worker; the first owns the others.
REMOTE = frozenset({1, 3})
AWAY = [user for user in USERS if partition_of(user.encode(), SETTINGS.partitions) in REMOTE]
HERE = [user for user in USERS if user not in AWAY]


@contextmanager
def two_workers(folder: Path, settings: Settings = SETTINGS) -> Iterator[tuple[WebServer, WebServer]]:
    """Two workers that own the partitions of the same tables between them; both have all purchases."""
    first, second, sales = FixedOwnership(), FixedOwnership(), SalesCopy(settings.partitions)
    with ExitStack() as stack:
        here = stack.enter_context(serve(folder / "first", settings, first, sales))
        there = stack.enter_context(serve(folder / "second", settings, second, sales))
        first.others = dict.fromkeys(REMOTE, there.address)
        second.others = dict.fromkeys({0, 1, 2, 3} - REMOTE, here.address)
        for server in (here, there):
            EventShop(server).insert(
                *((f"{user}-{number}", "Phone", user, "1.00", NOW, "card") for user in USERS for number in range(3))
            )
        yield here, there


def path(user: str, query: str = "") -> str:
    return f"/v1/users/{quote(user, safe='')}/purchases{query}"


def many(users: list[str], query: str = "") -> str:
    return "/v1/purchases?" + "&".join(f"user_id={user}" for user in users) + query


def test_any_worker_responds_for_any_user_with_the_owners_response(tmp_path: Path):
    with two_workers(tmp_path) as (here, there):
        for user in USERS:
            answers = [server.get(path(user, "?limit=2")) for server in (here, there)]
            assert {answer.status for answer in answers} == {200}
            first, second = (answer.json for answer in answers)
            assert first["meta"]["worker"] == second["meta"]["worker"] == (there if user in AWAY else here).address
            assert first["purchases"] == second["purchases"]
            for name in ("ETag", "Link", "Cache-Control", "Content-Type"):
                assert len({answer.headers[name] for answer in answers}) == 1
        page = here.get(path(AWAY[0], "?limit=2"))
        following = here.get(page.headers["Link"][1:].partition(">")[0]).json
        assert following["purchases"][0]["position"] == 3
        assert here.get(path(AWAY[0], "?limit=2"), If_None_Match=page.headers["ETag"]).status == 304
        assert here.get(path(AWAY[0], "?limit=0")).json["code"] == "invalid-parameter"
        for route in ("/v1/users/{}/home", "/users/{}"):
            assert here.get(route.format(AWAY[0])).status == 200


def test_a_request_that_was_forwarded_once_is_not_forwarded_again(tmp_path: Path):
    with two_workers(tmp_path) as (here, _):
        answers = [here.get(f"/v1/users/{user}/purchases", Lately_Hop="1") for user in USERS]
        refused = [answer for answer in answers if answer.status != 200]
        assert refused, "one worker cannot own all partitions"
        assert {(answer.status, answer.json["code"]) for answer in refused} == {(508, "routing-loop")}


def test_many_users_of_two_workers_are_in_one_response_with_one_etag(tmp_path: Path):
    with two_workers(tmp_path) as (here, there):
        first, second = here.get(many(USERS, "&limit=2")), there.get(many(USERS, "&limit=2"))
        assert (first.status, first.json["meta"]) == (200, {"limit": 2, "complete": True})
        assert [part["user_id"] for part in first.json["users"]] == USERS
        assert {part["meta"]["worker"] for part in first.json["users"]} == {here.address, there.address}
        for part in first.json["users"]:
            alone = here.get(path(part["user_id"], "?limit=2")).json
            assert {**part, "meta": None} == {**alone, "meta": None}
            assert part["meta"].keys() == alone["meta"].keys()
        assert first.headers["ETag"] == second.headers["ETag"]
        assert there.get(many(USERS, "&limit=2"), If_None_Match=first.headers["ETag"]).status == 304


def test_users_of_a_worker_that_is_away_have_an_error_of_their_own(tmp_path: Path):
    with two_workers(tmp_path) as (here, there):
        there.stop_listening()
        assert_problem(here.get(path(AWAY[0])), 503, "owner-away")
        answer = here.get(many(USERS))
        assert (answer.status, answer.json["meta"]["complete"]) == (200, False)
        errors = {part["user_id"]: part["error"] for part in answer.json["users"] if "error" in part}
        assert errors.keys() == set(AWAY)
        assert {error["code"] for error in errors.values()} == {"owner-away"}
        assert {error["retry_after_ms"] for error in errors.values()} == {1000}
        alone = here.get(many(AWAY))
        assert_problem(alone, 503, "owner-away")
        assert alone.headers["Retry-After"] == "1"


def test_a_complete_copy_answers_instead_of_an_owner_that_is_away(tmp_path: Path):
    with two_workers(tmp_path) as (here, there):
        there.stop_listening()
        here.ownership.caught_up = REMOTE
        for user in AWAY:
            answer = here.get(path(user)).json
            assert (answer["meta"]["role"], len(answer["purchases"])) == ("standby", 3)
        assert_problem(here.get(path(AWAY[0], "?consistency=active")), 503, "owner-away")
        assert_problem(here.get(path(AWAY[0], "?max_lag_ms=5")), 503, "too-stale")
        assert here.get(path(AWAY[0], f"?after_order={AWAY[0]}-1")).status == 200
        assert_problem(here.get(path(AWAY[0], "?after_order=never")), 503, "not-up-to-position")
        whole = here.get(many(USERS))
        assert (whole.status, whole.json["meta"]["complete"]) == (200, True)
        roles = {part["user_id"]: part["meta"]["role"] for part in whole.json["users"]}
        assert roles == {**dict.fromkeys(HERE, "active"), **dict.fromkeys(AWAY, "standby")}
        for route in ("/v1/users/{}/home", "/users/{}"):
            assert here.get(route.format(AWAY[0])).status == 200


def test_without_a_copy_and_without_mysql_the_reason_is_that_of_the_owner(tmp_path: Path):
    settings = replace(SETTINGS, fallback_per_s=100, mysql_host="127.0.0.1", mysql_port=find_free_port())
    with two_workers(tmp_path, settings) as (here, there):
        there.stop_listening()
        assert_problem(here.get(path(AWAY[0])), 503, "owner-away")
        assert_problem(here.get(many(AWAY)), 503, "owner-away")


def test_while_tables_recover_the_reason_is_recovering_and_never_an_empty_list(tmp_path: Path):
    with two_workers(tmp_path) as (here, there):
        there.ownership.is_worker_ready = False
        for server in (here, there):
            answer = server.get(path(AWAY[0]))
            assert_problem(answer, 503, "recovering")
            assert answer.headers["Retry-After"] == "1"
            assert server.get(many(AWAY)).json["code"] == "recovering"
        product = next(name for name in PRODUCTS if partition_of(name.encode(), SETTINGS.partitions) in REMOTE)
        for route in (f"/v1/products/{product}", f"/v1/products/{product}/purchases", f"/users/{AWAY[0]}"):
            assert_problem(there.get(route), 503, "recovering")
            assert_problem(here.get(route), 503, "recovering")
        for route in ("/v1/products/popular", "/v1/products/Phone/similar", f"/v1/users/{HERE[0]}/recommendations"):
            assert_problem(there.get(route), 503, "recovering")


def test_a_stream_is_forwarded_event_by_event(tmp_path: Path):
    with two_workers(tmp_path) as (here, there), open_stream(here, AWAY[0]) as live:
        _, data = live.event()
        assert data["meta"]["worker"] == there.address
        live.assert_quiet()
        EventShop(there).insert(("later", "Phone", AWAY[0], "1.00", NOW, None))
        seen, data = live.event()
        assert "later" in order_ids(data)
        with open_stream(here, AWAY[0], Last_Event_ID=seen) as again:
            again.assert_quiet()


def test_an_owner_that_does_not_respond_is_away_after_the_timeout(tmp_path: Path):
    with two_workers(tmp_path, replace(SETTINGS, forward_ms=300)) as (here, there):
        there.freeze()
        began = time.monotonic()
        assert_problem(here.get(path(AWAY[0])), 503, "owner-away")
        assert 0.2 < time.monotonic() - began < 2
        there.thaw()


USER_TABLES, PRODUCT_TABLES = ("by_user", "product_partials"), ("by_product", "baskets", "similar", "product_sales")
#: The routes that read the tables of each process.
USER_ROUTES = (
    path("ann"), many(["ann", "bob"]), "/v1/users/ann/home", "/users/ann", "/v1/tables/by_user/0",
    "/v1/tables/product_partials/1/digest",
)  # fmt: skip
PRODUCT_ROUTES = (
    "/v1/products/Phone", "/products/Phone", "/products?name=Phone", "/v1/products/Phone/purchases",
    "/v1/tables/by_product/0", "/v1/tables/similar/1/digest",
)  # fmt: skip
#: The routes that every process answers from its own memory, and asks others for neighbours.
LIST_ROUTES = ("/v1/products/Phone/similar", "/v1/products/popular", "/v1/users/ann/recommendations")


@contextmanager
def two_groups(folder: Path, settings: Settings = SETTINGS) -> Iterator[tuple[WebServer, WebServer]]:
    """Two workers with different agents; only the owner of a table has content in it."""
    first, second = FixedOwnership(tables=USER_TABLES), FixedOwnership(tables=PRODUCT_TABLES)
    sales = SalesCopy(settings.partitions)
    with ExitStack() as stack:
        users = stack.enter_context(serve(folder / "users", settings, first, sales))
        products = stack.enter_context(serve(folder / "products", settings, second, sales))
        first.elsewhere = dict.fromkeys(PRODUCT_TABLES, products.address)
        second.elsewhere = dict.fromkeys(USER_TABLES, users.address)
        EventShop(users).insert(("o1", "Phone", "ann", "1.00", NOW, "card"), ("o2", "Case", "bob", "2.00", NOW, "card"))
        EventShop(products).insert(("o1", "Phone", "eve", "5.00", NOW, "card"))
        yield users, products


def test_a_process_answers_for_the_tables_of_another_group_with_the_owners_response(tmp_path: Path):
    with two_groups(tmp_path) as (users, products):
        for route in (*USER_ROUTES, *PRODUCT_ROUTES):
            own, other = (users, products) if route in USER_ROUTES else (products, users)
            first, second = own.get(route), other.get(route)
            assert (first.status, second.status) == (200, 200), (route, first, second)
            assert first.headers.get("ETag") == second.headers.get("ETag"), route
        answer = products.get(path("ann")).json
        assert answer["meta"]["worker"] == users.address
        assert [row["order_id"] for row in answer["purchases"]] == ["o1"]
        assert [part["user_id"] for part in products.get(many(["ann", "bob"])).json["users"]] == ["ann", "bob"]
        assert users.totals("Phone") == (1, "5.00")
        assert_problem(users.get("/v1/products/Case"), 404, "unknown-product")
        assert_problem(users.get("/v1/tables/nothing/0"), 404, "not-found")
        with open_stream(products, "ann") as live:
            assert live.event()[1]["meta"]["worker"] == users.address


def test_a_process_that_recovers_its_own_tables_still_forwards_requests_for_other_tables(tmp_path: Path):
    with two_groups(tmp_path) as (users, products):
        products.ownership.is_worker_ready = False
        assert products.get(path("ann")).status == 200
        assert_problem(products.get("/v1/products/Phone"), 503, "recovering")
        assert_problem(users.get("/v1/products/Phone"), 503, "recovering")


def test_an_owner_in_another_group_that_does_not_answer_or_is_unknown_is_away(tmp_path: Path):
    with two_groups(tmp_path) as (users, products):
        products.ownership.elsewhere = dict.fromkeys(USER_TABLES)
        for route in USER_ROUTES:
            assert_problem(products.get(route), 503, "owner-away")
        products.ownership.is_worker_ready = False
        assert_problem(products.get(path("ann")), 503, "owner-away")
        products.stop_listening()
        for route in PRODUCT_ROUTES:
            answer = users.get(route)
            assert_problem(answer, 503, "owner-away")
            assert answer.headers["Retry-After"] == "1"
        assert users.get("/v1/products/popular").json["meta"]["complete"] is True
        recommendations = users.get("/v1/users/ann/recommendations")
        assert (recommendations.status, recommendations.json["meta"]["complete"]) == (200, False)
        # Nobody bought anything lately that could fill this list.
        assert_problem(users.get("/v1/products/Phone/similar"), 503, "owner-away")


def test_processes_that_each_take_the_other_for_the_owner_do_not_forward_in_circles(tmp_path: Path):
    with two_groups(tmp_path) as (users, products):
        users.ownership.tables, users.ownership.elsewhere = (), dict.fromkeys(USER_TABLES, products.address)
        for server in (users, products):
            assert_problem(server.get(path("ann"), Lately_Hop="1"), 508, "routing-loop")
            for route in (path("ann"), "/v1/users/ann/home", many(["ann"])):
                assert_problem(server.get(route), 503, "owner-away")


def test_a_table_that_no_process_writes_is_elsewhere_on_every_route_that_needs_it(tmp_path: Path):
    with two_groups(tmp_path) as (users, products):
        users.ownership.elsewhere = products.ownership.elsewhere = {}
        for server, routes in ((users, PRODUCT_ROUTES), (products, USER_ROUTES)):
            for route in routes:
                assert_problem(server.get(route), 421, "agent-elsewhere")
        assert "does not run the agent by_user" in products.get(many(["ann", "bob"])).json["detail"]


def test_recommendations_are_built_in_every_process(tmp_path: Path):
    with two_groups(tmp_path) as (users, products):
        for server in (users, products):
            for route in LIST_ROUTES:
                answer = server.get(route)
                assert (answer.status, answer.json["meta"]["complete"], answer.json["meta"]["role"]) == (
                    200, True, "active",
                )  # fmt: skip


def test_a_process_without_an_agent_names_it(tmp_path: Path):
    ownership = FixedOwnership(tables=("by_user", "product_partials"))
    with serve(tmp_path, SETTINGS, ownership) as server:
        for route in ("/v1/products/Phone", "/v1/products/Phone/similar", "/v1/tables/by_product/0"):
            answer = server.get(route)
            assert_problem(answer, 421, "agent-elsewhere")
            assert "LATELY_AGENTS, which here is by_user,product_partials" in answer.json["detail"]
