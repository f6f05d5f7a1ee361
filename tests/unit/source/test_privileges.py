"""SHOW GRANTS is read as the servers apply it: patterns, partial revokes, roles, tables and columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source.privileges import Need, grant_statements, matches, parse_grants
from source.quoting import quote_account

SELECT = Need("SELECT", "shop", "orders")


def missing(*lines: str, needs: tuple[Need, ...] = (SELECT,), **options) -> list[str]:
    return [need.privilege for need in parse_grants(lines, **options).missing(needs)]


@pytest.mark.parametrize(
    "line",
    [
        "GRANT SELECT ON *.* TO `u`@`%`",
        "GRANT ALL PRIVILEGES ON *.* TO `u`@`%` WITH GRANT OPTION",
        "GRANT INSERT, SELECT ON `shop`.* TO `u`@`%`",
        "GRANT ALL PRIVILEGES ON `shop`.* TO `u`@`%`",
        "GRANT SELECT ON `sh%`.* TO `u`@`%`",
        "GRANT SELECT ON `sho_`.* TO `u`@`%`",
        "GRANT INSERT, SELECT ON `shop`.`orders` TO `u`@`%`",
        'GRANT SELECT ON "shop"."orders" TO "u"@"%"',
        "GRANT SELECT ON shop.orders TO u@localhost",
        "GRANT SELECT ON `shop`.* TO `r`",
        "GRANT SELECT ON *.* TO 'u'@'%' IDENTIFIED BY PASSWORD '*B6,ON TO' REQUIRE SSL",
    ],
)
def test_a_privilege_may_be_granted_at_every_level(line):
    assert missing(line) == []


@pytest.mark.parametrize(
    "line",
    [
        "GRANT USAGE ON *.* TO `u`@`%`",
        "GRANT INSERT ON *.* TO `u`@`%`",
        r"GRANT SELECT ON `sho\_`.* TO `u`@`%`",
        "GRANT SELECT ON `shop`.`orders2` TO `u`@`%`",
        "GRANT SELECT (`price`) ON `shop`.`orders` TO `u`@`%`",
        "GRANT `SELECT`@`%` TO `u`@`%`",
        "GRANT PROXY ON ''@'%' TO 'u'@'%' WITH GRANT OPTION",
        "GRANT EXECUTE ON PROCEDURE `shop`.`orders` TO `u`@`%`",
        "SET DEFAULT ROLE `r` FOR `u`@`%`",
        "",
    ],
)
def test_a_privilege_on_something_else_is_missing(line):
    assert missing(line) == ["SELECT"]


def test_of_several_patterns_only_the_most_specific_one_counts():
    wide, narrow = "GRANT SELECT ON `sh%`.* TO `u`@`%`", "GRANT INSERT ON `shop`.* TO `u`@`%`"
    assert missing(wide, narrow) == ["SELECT"]
    assert missing(wide.replace("SELECT", "INSERT"), narrow.replace("INSERT", "SELECT")) == []
    # Those of a role are looked up for themselves: so does MariaDB.
    assert missing(wide.replace("`u`@`%`", "`r`"), narrow) == []


def test_an_account_of_mysql_that_uses_roles_has_the_first_pattern_of_all():
    # Both were tried on a server.
    first, second = "GRANT UPDATE ON `sh%`.* TO `u`@`%`", "GRANT SELECT ON `sho%`.* TO `u`@`%`"
    assert missing(first, second, uses_roles=True) == ["SELECT"]
    assert missing(second.replace("sho%", "shop"), first, uses_roles=True) == []


def test_without_patterns_a_name_is_a_name():
    line = "GRANT SELECT ON `sh%`.* TO `u`@`%`"
    assert missing(line, has_patterns=False) == ["SELECT"]
    assert missing(line.replace("sh%", "shop"), has_patterns=False) == []


def test_a_partial_revoke_takes_a_global_privilege_away_for_one_schema():
    lines = ["GRANT SELECT, INSERT ON *.* TO `u`@`%`", "REVOKE SELECT ON `shop`.* FROM `u`@`%`"]
    needs = (SELECT, Need("INSERT", "shop", "orders"), Need("SELECT", "other"))
    assert missing(*lines, needs=needs) == ["SELECT"]
    assert parse_grants([*lines, "GRANT SELECT ON `shop`.* TO `u`@`%`"]).has(SELECT)


def test_columns_count_for_a_need_of_exactly_these_columns():
    line = "GRANT SELECT (`a`, `B`), INSERT ON `shop`.`orders` TO `u`@`%`"
    assert missing(line, needs=(Need("SELECT", "shop", "orders", ("A", "b")),)) == []
    assert missing(line, needs=(Need("SELECT", "shop", "orders", ("a", "c")),)) == ["SELECT"]
    assert missing(line, needs=(Need("INSERT", "shop", "orders", ("c",)),)) == []


def test_roles_are_named_and_can_be_left_out():
    lines = ["GRANT `r`, 's'@'%' TO `u`@`%`", "GRANT SELECT ON `shop`.* TO `r`"]
    assert parse_grants(lines).roles == ("r", "s")
    assert missing(*lines) == []
    assert missing(*lines, only="u") == ["SELECT"]
    assert missing(*lines, "GRANT SELECT ON `shop`.* TO PUBLIC", only="u") == []


def test_all_privileges_on_a_schema_do_not_contain_global_ones():
    lines = ["GRANT ALL PRIVILEGES ON `shop`.* TO `u`@`%`"]
    assert missing(*lines, needs=(Need("SUPER"), Need("TRIGGER", "shop"))) == ["SUPER"]
    assert missing("GRANT ALL ON *.* TO u@h", needs=(Need("SUPER"), Need("GRANT OPTION"))) == ["GRANT OPTION"]


def test_missing_privileges_are_granted_with_one_statement_per_level():
    needs = [
        Need("SELECT", "my_shop", "orders"), Need("TRIGGER", "my_shop", "orders"), Need("LOCK TABLES", "my_shop"),
        Need("PROCESS"), Need("SELECT", "s", "t", ("a", "b`c")),
    ]  # fmt: skip
    assert grant_statements(needs, quote_account("o'neil@%")) == [
        "GRANT SELECT, TRIGGER ON `my_shop`.`orders` TO 'o''neil'@'%'",
        r"GRANT LOCK TABLES ON `my\_shop`.* TO 'o''neil'@'%'",
        "GRANT PROCESS ON *.* TO 'o''neil'@'%'",
        "GRANT SELECT (`a`, `b``c`) ON `s`.`t` TO 'o''neil'@'%'",
    ]


PRIVILEGES = ["SELECT", "INSERT", "LOCK TABLES", "TRIGGER"]
NAMES = st.text("ab_%\\`.@' ,()", min_size=1, max_size=6)
SETS = st.sets(st.sampled_from(PRIVILEGES), min_size=1)


@given(name=NAMES, other=NAMES)
def test_a_name_that_is_escaped_matches_itself_only(name, other):
    pattern = "".join("\\" + c if c in "_%\\" else c for c in name)
    assert matches(pattern, name)
    assert matches(pattern, other) == (name == other)


@given(schema=NAMES, table=NAMES, privileges=SETS, user=NAMES)
def test_a_printed_grant_gives_exactly_its_privileges(schema, table, privileges, user):
    account = quote_account(f"{user}@%")
    for needs in (
        [Need(name, schema.replace("\\", "") or "a", table) for name in sorted(privileges)],
        [Need(name, schema.replace("\\", "") or "a") for name in sorted(privileges)],
        [Need(name) for name in sorted(privileges)],
    ):
        granted = parse_grants(grant_statements(needs, account))
        assert granted.missing(needs) == []
        absent = [need._replace(privilege=name) for need in needs[:1] for name in PRIVILEGES if name not in privileges]
        assert granted.missing(absent) == absent
        if needs[0].schema != "*":
            assert not granted.has(needs[0]._replace(schema=needs[0].schema + "x"))


@given(st.text(max_size=60), st.sampled_from(["GRANT ", "REVOKE ", ""]))
def test_no_line_is_an_error(text, start):
    parse_grants([start + text, f"{start}{text} ON `a`.`b` TO `c`", f"{start}SELECT ON {text} TO u"])


@pytest.mark.parametrize(
    ("present", "statement"),
    [
        ("GRANT INSERT ON `my_shop`.* TO u", "GRANT SELECT ON `my_shop`.* TO u"),
        (r"GRANT INSERT ON `my\_shop`.* TO u", r"GRANT SELECT ON `my\_shop`.* TO u"),
        ("GRANT INSERT, DELETE ON `my%`.* TO u", r"GRANT DELETE, INSERT, SELECT ON `my\_shop`.* TO u"),
        ("GRANT INSERT ON *.* TO u", r"GRANT SELECT ON `my\_shop`.* TO u"),
    ],
)
def test_a_grant_does_not_hide_what_the_account_has_by_another_pattern(present, statement):
    granted = parse_grants([present])
    assert grant_statements([Need("SELECT", "my_shop")], "u", granted) == [statement]
    after = parse_grants([present, statement])
    assert after.has(Need("SELECT", "my_shop"))
    assert after.has(Need("INSERT", "my_shop"))


def test_a_definer_without_a_host_is_a_role():
    assert quote_account("clerk@") == "'clerk'"
    assert quote_account("a@b@%") == "'a@b'@'%'"
