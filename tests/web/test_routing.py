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
    first, second = FixedOwnership(), FixedOwnership()
    with ExitStack() as stack:
        here = stack.enter_context(serve(folder / "first", settings, first))
        there = stack.enter_context(serve(folder / "second", settings, second))
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
        for route in (f"/v1/products/{product}", f"/v1/products/{product}/similar", f"/users/{AWAY[0]}"):
            assert_problem(there.get(route), 503, "recovering")
            assert_problem(here.get(route), 503, "recovering")


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


def test_a_process_without_an_agent_names_it(tmp_path: Path):
    ownership = FixedOwnership(tables=("by_user", "product_partials"))
    with serve(tmp_path, SETTINGS, ownership) as server:
        for route in ("/v1/products/Phone", "/v1/products/Phone/similar", "/v1/tables/by_product/0"):
            answer = server.get(route)
            assert_problem(answer, 421, "agent-elsewhere")
            assert "LATELY_AGENTS, which here is by_user,product_partials" in answer.json["detail"]
