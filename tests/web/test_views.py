"""The views over empty tables: what they answer, and what they say to a wrong request."""

from __future__ import annotations

import pytest

from tests.kit.web import WebServer


@pytest.mark.parametrize(
    ("path", "status", "code", "parameter"),
    [
        *[
            (f"/v1/users/ann/purchases?limit={text}", 400, "invalid-parameter", "limit")
            for text in ("0", "-1", "1e3", "%2B5", "%205", "%D9%A3", "", "5&limit=6", "٣".encode().hex())
        ],
        ("/v1/users/ann/purchases?limt=5", 400, "unknown-parameter", "limt"),
        ("/v1/users/%ff/purchases", 400, "invalid-user-id", "user_id"),
        ("/v1/users/a%00b/purchases", 400, "invalid-user-id", "user_id"),
        ("/v1/users/../purchases", 400, "invalid-user-id", "user_id"),
        ("/v1/users//purchases", 400, "invalid-user-id", "user_id"),
        (f"/v1/users/{'x' * 129}/purchases", 400, "invalid-user-id", "user_id"),
        ("/v1/products/%ff", 400, "invalid-product-name", "product_name"),
        ("/v1/nothing", 404, "not-found", None),
    ],
)
def test_bad_input_is_a_problem_that_names_the_parameter(shared: WebServer, path, status, code, parameter):
    answer = shared.get(path, X_Request_ID="my-id")
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"] == answer.json["instance"] == "my-id"
    assert (answer.json["code"], answer.json["type"]) == (code, f"urn:lately:problem:{code}")
    assert answer.json.get("errors", [{"parameter": None}])[0]["parameter"] == parameter


@pytest.mark.parametrize("limit", ["100", "101", "1000000000000000000"])
def test_a_limit_above_100_is_100(shared: WebServer, limit):
    assert shared.get(f"/v1/users/ann/purchases?limit={limit}").json["meta"]["limit"] == 100


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_other_methods_are_refused_with_what_is_allowed(shared: WebServer, method):
    answer = shared.get("/v1/users/ann/purchases", method=method)
    assert (answer.status, answer.headers["Allow"], answer.json["code"]) == (
        405,
        "GET, HEAD, OPTIONS",
        "method-not-allowed",
    )


def test_head_is_get_without_a_body(shared: WebServer):
    answer = shared.get("/v1/users/ann/purchases", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


def test_health_and_metrics_answer_without_any_data(shared: WebServer):
    assert shared.get("/livez").json == {"status": "ok"}
    assert shared.get("/readyz").json == {"status": "ok"}
    assert "lately_ready 1.0" in shared.get("/metrics").text


def test_a_person_gets_pages_and_pages_of_errors(shared: WebServer):
    front = shared.get("/", Accept="text/html")
    assert '<input id="user_id"' in front.text
    there = shared.get("/?user_id=a%2Fb%20c")
    assert (there.status, there.headers["Location"]) == (303, "/users/a%2Fb%20c")
    wrong = shared.get("/users/%ff", Accept="text/html")
    assert (wrong.status, wrong.headers["Content-Type"]) == (400, "text/html; charset=utf-8")


def test_a_user_never_seen_has_an_empty_list_and_a_product_never_bought_is_unknown(shared: WebServer):
    answer = shared.get("/v1/users/nobody/purchases")
    assert (answer.status, answer.json["purchases"], answer.json["meta"]["complete"]) == (200, [], True)
    assert "No purchases yet" in shared.get("/users/nobody").text
    missing = shared.get("/v1/products/Nothing")
    assert (missing.status, missing.json["code"]) == (404, "unknown-product")
