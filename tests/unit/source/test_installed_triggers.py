"""A trigger belongs to Lately when its body inserts into the outbox, whatever the trigger is called."""

from __future__ import annotations

import pytest

from source.installed_triggers import InstalledTrigger, find_inserts


@pytest.mark.parametrize(
    "body",
    [
        "INSERT INTO `box` (a) VALUES (1)",
        "insert\n  into box(a) values (1)",
        "BEGIN IF NEW.a THEN INSERT IGNORE INTO `shop`.`box` VALUES (1); END IF; END",
        "INSERT INTO shop . box SELECT 1",
        "INSERT INTO `Shop`.`BOX` SELECT 1",
    ],
)
def test_a_body_that_inserts_into_the_outbox_is_found(body):
    assert find_inserts(body, "shop") == {("shop", "box")}


def test_the_schema_of_an_unqualified_name_is_the_triggers_schema():
    assert find_inserts("INSERT INTO box VALUES (1)", "other") == {("other", "box")}


@pytest.mark.parametrize(
    "body",
    ["SET NEW.a = 1", "UPDATE box SET a = 1", "INSERT INTO `box2` VALUES (1)", "INSERT INTO `a``box` VALUES (1)"],
)
def test_a_body_that_does_not_is_not_found(body):
    assert ("shop", "box") not in find_inserts(body, "shop")


def test_the_tables_that_a_body_reads_are_known():
    body = "IF NOT EXISTS (SELECT 1 FROM `orders` WHERE 1) THEN INSERT INTO box SELECT 1 FROM shop.`Other`; END IF"
    assert InstalledTrigger("s", "n", "t", "update", "u@h", body).tables_read == {"orders", "other"}
