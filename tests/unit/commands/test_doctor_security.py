"""`lately doctor` reports settings that are not secure, unless everything is on this machine."""

from __future__ import annotations

import dataclasses

import pytest

from app.settings import Settings
from commands.doctor.security import _check_settings

KEY = "a key of sixteen bytes"
SECURE = Settings(
    kafka="kafka-1:9093,kafka-2:9093", kafka_security="SASL_SSL", mysql_host="mysql-1", mysql_tls="VERIFY_IDENTITY",
    web_host="10.0.0.1", auth="token", token_secret=KEY, signing_key=KEY,
)  # fmt: skip


def names(settings: Settings) -> list[str]:
    return [finding.name.removeprefix("security ") for finding in _check_settings(settings)]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"kafka_security": "PLAINTEXT"}, ["kafka"]),
        ({"kafka_security": "SASL_PLAINTEXT", "kafka": "127.0.0.1:9092,kafka-2:9092"}, ["kafka"]),
        ({"mysql_tls": "REQUIRED"}, ["mysql"]),
        ({"mysql_tls": "PREFERRED", "mysql_host": "::1"}, []),
        ({"auth": "none"}, ["web"]),
        ({"signing_key": ""}, ["states"]),
        ({"signing_key_previous": KEY, "token_secret_previous": KEY}, ["rotation", "rotation"]),
    ],
)
def test_each_setting_that_is_not_secure_is_a_finding(changed: dict[str, str], expected: list[str]):
    assert names(dataclasses.replace(SECURE, **changed)) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_on_one_machine_the_defaults_are_no_finding(host: str):
    assert names(Settings(kafka=f"{host}:9092", mysql_host=host, web_host=host)) == []
