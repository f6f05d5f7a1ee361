"""What every response that reports a problem contains."""

from __future__ import annotations

from tests.kit.http_client import Answer


def assert_problem(answer: Answer, status: int, code: str) -> None:
    """The response is a complete problem document with this status and code."""
    assert (answer.status, answer.json["code"]) == (status, code), answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"] == answer.json["instance"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (answer.json["type"], answer.json["status"]) == (f"urn:lately:problem:{code}", status)
    assert answer.json["title"]
    assert answer.json["detail"]
    assert "Traceback" not in answer.text
