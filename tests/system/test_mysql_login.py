"""Logins with caching_sha2_password, the default of MySQL: no password crosses the network in clear text, and a
source that the server refuses for a while goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from app.errors import DatabaseRefused
from app.settings import Settings
from source.mysql import connect, execute
from tests.kit.eventually import eventually
from tests.kit.recording_proxy import RecordingProxy
from tests.kit.stack import Stack

pytestmark = pytest.mark.mysql_only("MariaDB has no such accounts")

USER, PASSWORD = "lately", "mysql-hunter2-€"


@pytest.fixture
def shop(own_database) -> Iterator[tuple[Stack, RecordingProxy]]:
    """A shop whose user has a password, and a proxy before the server."""
    server, stack = own_database
    stack.create_orders()
    stack.execute(f"CREATE USER {USER} IDENTIFIED WITH caching_sha2_password BY '{PASSWORD}'")
    stack.execute(f"GRANT ALL ON *.* TO {USER}")
    with RecordingProxy(server.port) as proxy:
        stack.env |= {
            "LATELY_MYSQL_PORT": str(proxy.port), "LATELY_MYSQL_USER": USER, "LATELY_MYSQL_PASSWORD": PASSWORD,
        }  # fmt: skip
        yield stack, proxy


def login(stack: Stack, mode: str) -> str:
    """Return "" or the message of the refusal."""
    try:
        connect(Settings.from_env({**stack.env, "LATELY_MYSQL_TLS": mode})).close()
    except DatabaseRefused as exc:
        return str(exc)
    return ""


def test_without_tls_only_a_login_that_needs_no_password_in_clear_text_is_possible(shop: tuple[Stack, RecordingProxy]):
    stack, proxy = shop
    refused = "LATELY_MYSQL_TLS is DISABLED, and the password was not sent: set LATELY_MYSQL_TLS to"
    assert refused in login(stack, "DISABLED")
    assert login(stack, "PREFERRED") == ""
    assert login(stack, "DISABLED") == "", "the server has the password in its cache"
    stack.execute("FLUSH PRIVILEGES")
    assert refused in login(stack, "DISABLED")

    stack.execute("SET GLOBAL require_secure_transport = ON")
    assert refused in login(stack, "DISABLED")
    with closing(connect(Settings.from_env({**stack.env, "LATELY_MYSQL_TLS": "REQUIRED"}))) as connection:
        assert "takes TLS only, and LATELY_MYSQL_TLS is DISABLED" in login(stack, "DISABLED")
        execute(connection, "SET GLOBAL require_secure_transport = OFF")
    assert proxy.recorded
    assert PASSWORD.encode() not in proxy.recorded


@pytest.mark.cost(20)
def test_a_source_that_the_server_refuses_for_a_while_goes_on(shop: tuple[Stack, RecordingProxy]):
    stack, proxy = shop
    stack.setup()
    stack.env["LATELY_MYSQL_TLS"] = "DISABLED"
    source = stack.source()
    stack.insert(("o-1", "tea", "ann", "19.90", "2026-01-31 08:00:00", "card"))
    eventually(lambda: len(stack.events()) == 1, 30)

    stack.execute("FLUSH PRIVILEGES")
    stack.kill_connections(USER)
    stack.insert(("o-2", "mug", "ann", "9.90", "2026-01-31 09:00:00", "card"))
    eventually(lambda: "publishing stopped (MySQL asks for the password of lately@" in source.tail(), 30)
    assert "set LATELY_MYSQL_TLS to VERIFY_IDENTITY or REQUIRED); trying again in" in source.tail()
    refused = stack.lately("source")
    assert refused.child.returncode == 2, "a start is refused"
    assert len(stack.events()) == 1

    # A login with TLS fills the cache of the server.
    with closing(connect(Settings.from_env({**stack.env, "LATELY_MYSQL_TLS": "REQUIRED"}))) as connection:
        execute(connection, "DO 1")
    eventually(lambda: len(stack.events()) == 2, 60)
    assert source.is_running
    assert PASSWORD.encode() not in proxy.recorded
