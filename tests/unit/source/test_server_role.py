"""Which facts show that a server is a primary, and the next step when they do not."""

from __future__ import annotations

import pytest

from source.server_role import RoleFacts, find_doubt, find_group_reason, find_replica_reason

MYSQL = {"account": "'lately'@'%'", "privilege": "REPLICATION CLIENT"}
MARIADB = {"is_mariadb": True, "account": "'lately'@'%'", "privilege": "SLAVE MONITOR"}
GROUP = {**MYSQL, "group": "AAAA", "channels": ("group_replication_recovery",)}


@pytest.mark.parametrize(
    "facts",
    [
        RoleFacts(**MYSQL),
        RoleFacts(**MYSQL, has_replicated=True),
        RoleFacts(**MYSQL, read_only="super_read_only"),
        RoleFacts(**GROUP),
        RoleFacts(**MARIADB),
        RoleFacts(**MARIADB, has_replicated=True),
        RoleFacts(**MARIADB, channels=None),
    ],
)
def test_a_server_without_a_replication_is_a_primary(facts: RoleFacts):
    assert find_replica_reason(facts) is None
    assert find_doubt(facts) is None


@pytest.mark.parametrize("product", [MYSQL, MARIADB])
@pytest.mark.parametrize(
    "facts", [{"channels": ("",)}, {"channels": ("other", "")}, {"channels": None, "is_replicating": True}]
)
def test_a_server_with_a_replication_is_a_replica(product: dict, facts: dict):
    assert "the server is a replica: set LATELY_MYSQL_HOST" in str(find_replica_reason(RoleFacts(**product, **facts)))


def test_a_replication_into_a_group_makes_its_primary_a_replica():
    facts = RoleFacts(**{**GROUP, "channels": ("group_replication_applier", "clusterset_replication")})
    assert "is a replica" in str(find_replica_reason(facts))


@pytest.mark.parametrize(
    ("facts", "grant"),
    [
        (RoleFacts(**MYSQL, channels=None), "GRANT REPLICATION CLIENT ON *.* TO 'lately'@'%'"),
        (RoleFacts(**MYSQL, channels=None, has_replicated=True), "GRANT REPLICATION CLIENT ON *.* TO 'lately'@'%'"),
        (RoleFacts(**{**GROUP, "channels": None}), "GRANT REPLICATION CLIENT ON *.* TO 'lately'@'%'"),
        (RoleFacts(**MARIADB, channels=None, has_replicated=True), "GRANT SLAVE MONITOR ON *.* TO 'lately'@'%'"),
        (RoleFacts(**MARIADB, channels=None, read_only="read_only"), "GRANT SLAVE MONITOR ON *.* TO 'lately'@'%'"),
    ],
)
def test_a_list_that_may_not_be_read_is_no_proof_of_a_primary(facts: RoleFacts, grant: str):
    assert find_replica_reason(facts) is None
    reason = str(find_doubt(facts))
    assert reason.startswith("it is not known whether the server is a replica")
    assert reason.endswith(f": {grant}")


@pytest.mark.parametrize("mode", ["read_only", "super_read_only"])
def test_a_secondary_of_a_group_is_no_primary(mode: str):
    reason = str(find_replica_reason(RoleFacts(**GROUP, read_only=mode)))
    assert reason == (
        "the server is a secondary of its replication group: set LATELY_MYSQL_HOST to the primary of the group"
    )


@pytest.mark.parametrize("reads_transactions", [False, True])
def test_a_group_with_several_primaries_is_not_proven(reads_transactions: bool):
    reason = find_group_reason(RoleFacts(**GROUP, is_single_primary=False), reads_transactions)
    assert "several primaries" in str(reason)


def test_the_primary_of_a_group_is_proven_unless_the_capture_waits_for_open_transactions():
    assert find_group_reason(RoleFacts(**GROUP), reads_transactions=False) is None
    assert "set LATELY_SOURCE_MODE=outbox" in str(find_group_reason(RoleFacts(**GROUP), reads_transactions=True))


def test_a_galera_node_is_not_proven():
    assert "Galera" in str(find_group_reason(RoleFacts(**MARIADB, is_galera=True), reads_transactions=False))
    assert find_group_reason(RoleFacts(**MARIADB), reads_transactions=True) is None
