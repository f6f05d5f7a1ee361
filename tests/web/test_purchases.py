"""A user's purchases over HTTP: caching, cursors, many users, and wrong parameters."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from app.settings import Settings
from local.process import find_free_port
from tests.kit.event_shop import EventShop
from tests.kit.web import WebServer, serve

NOW = datetime(2026, 1, 31, 12)


def path(user: str, **parameters: object) -> str:
    return f"/v1/users/{quote(user, safe='')}/purchases?{urlencode(parameters)}"


def test_what_the_client_has_is_not_sent_again(shop: EventShop, server: WebServer):
    shop.insert(("o1", "Phone", "ann", "1.00", NOW, "card"), ("o2", "Phone", "ann", "1.00", NOW, "card"))
    assert len(server.purchases("ann")) == 2
    first = server.get(path("ann", limit=1))
    etag = first.headers["ETag"]
    assert etag.startswith('W/"')
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert f"cursor={first.json['next_cursor']}" in first.headers["Link"]
    for known in (etag, etag.removeprefix("W/"), f'"x", {etag}', "*"):
        again = server.get(path("ann", limit=1), If_None_Match=known)
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag)
        assert again.headers["Cache-Control"] == "private, no-cache"
    for other in ('"x"', "nonsense"):
        assert server.get(path("ann", limit=1), If_None_Match=other).status == 200
    assert server.get(path("ann", limit=2)).headers["ETag"] != etag
    head = server.get(path("ann", limit=1), method="HEAD")
    assert (head.status, head.body, head.headers["ETag"]) == (200, b"", etag)
    assert head.headers["Content-Length"] == str(len(first.body))
    shop.update(lambda line: line.order_id == "o2", price="2.00")
    assert server.get(path("ann", limit=1), If_None_Match=etag).status == 200


def test_a_cursor_opens_nothing_but_what_it_was_given_for(shop: EventShop, server: WebServer):
    shop.insert(
        *[(f"{user}-{number}", "Phone", user, "1.00", NOW, "card") for number in range(3) for user in ("ann", "bob")]
    )
    assert len(server.purchases("ann")) == len(server.purchases("bob")) == 3
    cursor = server.get(path("ann", limit=1)).json["next_cursor"]
    assert server.get(path("ann", limit=2, cursor=cursor)).json["purchases"][0]["position"] == 2
    wrong = [path("bob", limit=1, cursor=cursor), path("ann", limit=1, cursor=cursor[:-1]),
             path("ann", limit=1, cursor=cursor[:40] + ("A" if cursor[40] != "A" else "B") + cursor[41:]),
             path("ann", cursor="x")]  # fmt: skip
    wrong += [
        path("ann", limit=1, cursor=cursor, **other)
        for other in ({"group_by": "order"}, {"since": "2026-01-01T00:00:00Z"}, {"until": "2027-01-01T00:00:00Z"},
                      {"payment_method": "card"}, {"after_order": "ann-1"}, {"wait_ms": 1}, {"max_lag_ms": 10**9},
                      {"consistency": "source"})
    ]  # fmt: skip
    answers = [server.get(one) for one in wrong]
    assert {(answer.status, answer.json["code"]) for answer in answers} == {(400, "invalid-cursor")}
    assert len({answer.json["detail"] for answer in answers}) == 1
    assert {answer.json["errors"][0]["parameter"] for answer in answers} == {"cursor"}


def test_where_no_source_has_ever_run_any_answer_may_be_too_old(shared: WebServer):
    answer = shared.get(path("ann", max_lag_ms=10**18))
    assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "too-stale", "1")


def test_without_mysql_only_the_answers_from_mysql_are_missing(tmp_path: Path):
    settings = replace(Settings(), mysql_host="127.0.0.1", mysql_port=find_free_port())
    with serve(tmp_path, settings) as server:
        answer = server.get(path("ann", consistency="source"))
        assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "source-away", "1")
        assert "127.0.0.1" not in answer.text, "where the database is, is nobody's business"
        assert server.get(path("ann")).status == 200


def without_meta(answer: dict) -> dict:
    return {name: said for name, said in answer.items() if name != "meta"}


def test_many_users_are_answered_at_once(shop: EventShop, server: WebServer):
    shop.insert(
        *[(f"{user}-{number}", "Phone", user, "1.00", NOW, "card") for number in range(3) for user in ("ann", "a/b +")]
    )
    assert len(server.purchases("ann")) == len(server.purchases("a/b +")) == 3
    answer = server.get("/v1/purchases?user_id=a%2Fb%20%2B&user_id=nobody&limit=2&user_id=ann&user_id=ann")
    assert answer.status == 200
    assert answer.json["meta"] == {"limit": 2, "complete": True}
    assert [one["user_id"] for one in answer.json["users"]] == ["a/b +", "nobody", "ann"]
    for one in answer.json["users"]:
        assert without_meta(one) == without_meta(server.get(path(one["user_id"], limit=2)).json)
    following = answer.json["users"][2]["next_cursor"]
    assert len(server.get(path("ann", limit=2, cursor=following)).json["purchases"]) == 1
    hundred = server.get("/v1/purchases?" + "&".join(f"user_id=u{number}" for number in range(100)))
    assert (hundred.status, len(hundred.json["users"])) == (200, 100)


NUMBERS = ["-1", "1e3", "%2B5", "+5", "%205", "%D9%A3", "", "text"]


TIMES = ["yesterday", "2026-01-31", "2026-01-31T12:00:00", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", ""]


LIST_ONLY = [
    *[
        (f"{name}={text}", "invalid-parameter", name)
        for name in ("max_lag_ms", "wait_ms")
        for text in (*NUMBERS, "9" * 20)
    ],
    ("wait_ms=5001", "invalid-parameter", "wait_ms"),
    ("after_order=", "invalid-parameter", "after_order"),
    ("consistency=strong", "invalid-parameter", "consistency"),
    ("cursor=", "invalid-cursor", "cursor"),
    ("cursor=%ff", "invalid-cursor", "cursor"),
    ("cursor=a&cursor=b", "invalid-parameter", "cursor"),
    ("cursor=abc", "invalid-cursor", "cursor"),
    ("cursor=%F0%9F%98%80", "invalid-cursor", "cursor"),
    ("user_id=ann", "unknown-parameter", "user_id"),
]


EVERYWHERE = [
    *[(f"limit={text}", "invalid-parameter", "limit") for text in ("0", *NUMBERS)],
    ("limit=5&limit=5", "invalid-parameter", "limit"),
    *[(f"{name}={text}", "invalid-parameter", name) for name in ("since", "until") for text in TIMES],
    ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "invalid-parameter", "since"),
    ("since=2026-01-01T00:00:00Z&since=2026-01-01T00:00:00Z", "invalid-parameter", "since"),
    ("group_by=user", "invalid-parameter", "group_by"),
    ("payment_method=", "invalid-parameter", "payment_method"),
    ("payment_method=%ff", "invalid-parameter", "payment_method"),
    ("limt=5", "unknown-parameter", "limt"),
]


ROUTES = ["/v1/users/ann/purchases?", "/v1/users/ann/purchases/stream?", "/v1/purchases?user_id=ann&"]


CASES = [(ROUTES[0] + query, *rest) for query, *rest in LIST_ONLY]
CASES += [(route + query, *rest) for route in ROUTES for query, *rest in EVERYWHERE]
CASES += [
    (f"{ROUTES[1]}cursor=abc", "unknown-parameter", "cursor"),
    (f"{ROUTES[2]}wait_ms=5", "unknown-parameter", "wait_ms"),
]
CASES += [
    (f"/v1/users/{user}/purchases/stream", "invalid-user-id", "user_id")
    for user in ("%ff", "%zz", "ann%2", "a%00b", "x" * 129)
]
CASES += [
    (f"/v1/purchases?user_id=ann&user_id={user}", "invalid-user-id", "user_id") for user in ("", "%ff", "..", "%00")
]
CASES += [("/v1/purchases", "invalid-parameter", "user_id"), ("/v1/purchases?limit=5", "invalid-parameter", "user_id"),
          ("/v1/purchases?" + "user_id=a&" * 101, "invalid-parameter", "user_id")]  # fmt: skip


def test_bad_input_is_a_problem_that_names_the_parameter(shared: WebServer):
    for asked, code, parameter in CASES:
        answer = shared.get(asked.rstrip("&"))
        assert answer.status == 400, (asked, answer)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json["code"] == code, (asked, answer)
        assert answer.json["errors"][0]["parameter"] == parameter, (asked, answer)


@pytest.mark.parametrize("rows", ["purchases", "orders", "products"])
def test_before_the_first_order_there_is_nothing(shared: WebServer, rows: str):
    grouped = {} if rows == "purchases" else {"group_by": rows.removesuffix("s")}
    answer = shared.get(path("ann", since="0001-01-01T00:00:00Z", until="1970-01-01T00:00:00Z", **grouped))
    assert (answer.status, answer.json[rows], answer.json["meta"]["complete"]) == (200, [], True)
    assert "next_cursor" not in answer.json
