"""Settings come from LATELY_ variables; what is wrong with one is said in one line that names it."""

from __future__ import annotations

import dataclasses
from typing import get_args, get_type_hints

import pytest

from app.errors import EX_USAGE, BadSetting
from app.settings import COLUMNS, FALLBACK_PER_S, Settings

FIELDS = dataclasses.fields(Settings)
SECRET = "sixteen bytes..."
NUMBERS = [f.name for f in FIELDS if isinstance(f.default, int)]
SWITCHES = [f.name for f in FIELDS if isinstance(f.default, bool)]
TYPES = get_type_hints(Settings)
#: The secrets that have a minimum length.
SIGNING = ("token_secret", "token_secret_previous", "signing_key", "signing_key_previous")
LOGIN = {
    "kafka_security": "SASL_SSL", "kafka_sasl_mechanism": "PLAIN", "kafka_sasl_user": "x", "kafka_sasl_password": "x",
}  # fmt: skip


def required_with(name: str, pems: dict[str, str]) -> dict[str, str]:
    """Return the settings that a setting requires, itself included if it is the name of a file."""
    if name == "auth":
        return {"token_secret": SECRET}
    if name.startswith("kafka_s"):
        return LOGIN
    if name in SIGNING:
        return {}
    server, _, pem = name.partition("_")
    mode = {"kafka": {"kafka_security": "SSL"}, "mysql": {"mysql_tls": "VERIFY_CA"}}
    return {**mode[server], **{f"{server}_{kind}": path for kind, path in pems.items()}} if pem in pems else {}


def read(**variables: str) -> Settings:
    """Return the settings of these variables."""
    return Settings.from_env(variables)


def refusal(**variables: str) -> str:
    """The message with which these variables are refused."""
    with pytest.raises(BadSetting) as caught:
        read(**variables)
    assert caught.value.exit_code == EX_USAGE == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_variables_everything_has_its_default():
    assert read() == Settings()
    assert read(PATH="/bin", latelyish="1", LATELYX="1") == Settings()


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_every_setting_is_read_from_its_name_in_capitals(field, pems):
    special = {
        "source_columns": "price=x",
        "id": "x",
        "topic_prefix": "x",
        "instance_id": "x",
        "source_definer": "x@%",
        **dict.fromkeys(SWITCHES, "1"),
        **dict.fromkeys(SIGNING, SECRET),
        "report_tz": "Europe/Berlin",
        "away_exit_s": "301",
    }
    required = required_with(field.name, pems)
    text = special.get(field.name, "77" if field.name in NUMBERS else "x:1")
    text = (get_args(TYPES[field.name]) or [text])[-1]
    text = pems.get(field.name.partition("_")[2], text)

    settings = read(**{f"LATELY_{name.upper()}": value for name, value in {**required, field.name: text}.items()})

    value = int(text) if field.name in NUMBERS else text
    follows = {"fallback_per_s": FALLBACK_PER_S} if field.name == "mysql_host" else {}
    assert settings == dataclasses.replace(Settings(), **{**required, **follows, field.name: value})


def test_mysql_is_asked_for_want_of_a_table_only_by_a_worker_that_was_told_where_it_is():
    assert read().fallback_per_s == 0
    assert read(LATELY_MYSQL_HOST="db").fallback_per_s == FALLBACK_PER_S == 20
    assert read(LATELY_MYSQL_HOST="db", LATELY_FALLBACK_PER_S="0").fallback_per_s == 0


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_every_setting_says_what_it_is_for(field):
    assert field.metadata["help"]


def test_a_word_that_is_none_of_the_choices_is_refused_with_them():
    assert refusal(LATELY_SOURCE_MODE="binlog") == "LATELY_SOURCE_MODE: 'binlog' is not one of outbox, watermark"


def test_the_defaults_themselves_are_allowed():
    Settings().check()


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("LATELY_KAFKAS", "LATELY_KAFKA"),
        ("LATELY_PARTITION", "LATELY_PARTITIONS"),
        ("LATELY_PORT", "LATELY_WEB_PORT"),
        ("LATELY_MYSQL_PASS", "LATELY_MYSQL_PASSWORD"),
        ("LATELY_SOURCE_POLL", "LATELY_SOURCE_POLL_MS"),
        ("LATELY_kafka", "LATELY_KAFKA"),
        ("LATELY_Web_Port", "LATELY_WEB_PORT"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(unknown, nearest):
    assert refusal(**{unknown: "1"}) == f"unknown setting {unknown}; did you mean {nearest}?"


@pytest.mark.parametrize("text", ["04:30", ""])
def test_a_variable_that_was_removed_is_refused_with_its_replacement(text):
    assert refusal(LATELY_REPORT_DAILY=text) == (
        'LATELY_REPORT_DAILY was removed in 0.2.0: run "lately report daily" from cron, a systemd timer or a '
        "Kubernetes CronJob"
    )


def test_an_unknown_variable_is_refused_even_when_it_is_empty():
    assert refusal(LATELY_="").startswith("unknown setting LATELY_;")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["", "x", "1.5", "1e3", "0x10", "-", "1 2", "1,000", "ten", "9" * 5000])
def test_a_number_that_is_none_is_refused_by_name(name, text):
    assert refusal(**{f"LATELY_{name.upper()}": text}).startswith(f"LATELY_{name.upper()}: ")


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_below_the_least_is_refused(name):
    zero = (
        "recent_spare",
        "standby_replicas",
        "by_product",
        "similar",
        "source_metrics_port",
        "auth_insecure",
        "rate_per_s",
        "fallback_per_s",
        "log_pii",
        "stuck_s",
        "stuck_exit_s",
        "away_s",
        "away_exit_s",
    )
    minimum = 0 if name in zero else 1

    assert getattr(read(**{f"LATELY_{name.upper()}": str(minimum)}), name) == minimum
    message = refusal(**{f"LATELY_{name.upper()}": str(minimum - 1)})
    assert message.startswith(f"LATELY_{name.upper()}: '{minimum - 1}' is not a whole number from {minimum} ")


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"LATELY_AUTH": "password"}, "LATELY_AUTH: 'password' is not one of none, token"),
        ({"LATELY_AUTH_INSECURE": "2"}, "LATELY_AUTH_INSECURE: 2 is neither 0 nor 1"),
        ({"LATELY_AUTH": "token"}, "LATELY_TOKEN_SECRET must have 16 bytes or more"),
        ({"LATELY_TOKEN_SECRET": SECRET[1:]}, "LATELY_TOKEN_SECRET must have 16 bytes or more"),
    ],
)
def test_access_that_would_not_protect_is_refused(variables, cause):
    message = refusal(**variables)
    assert message.startswith(cause)
    assert SECRET[1:] not in message


@pytest.mark.parametrize("name", ["LATELY_WEB_PORT", "LATELY_MYSQL_PORT"])
def test_a_port_goes_up_to_65535(name):
    read(**{name: "65535"})

    message = refusal(**{name: "65536"})
    assert message == f"{name}: '65536' is not a whole number from 1 to 65535"


@pytest.mark.parametrize("servers", ["127.0.0.1:9092", "a:1", "kafka-1:9092,kafka-2.example:9093", "a:65535"])
def test_a_list_of_servers_is_host_and_port_by_commas(servers):
    assert read(LATELY_KAFKA=servers).kafka_servers == servers.split(",")


@pytest.mark.parametrize(
    "servers",
    [
        "", "a", "a:", ":9092", "a:b", "a:1,", ",a:1", "a:1,,b:2", "a:1, b:2", "a:1 b:2", "a:1;b:2", "a:1\n",
        "kafka://a:1", "a:1/", "a:-1", "a:123456", "a:0", "a:65536", "a:99999", "a:٣",
    ],
)  # fmt: skip
def test_a_bad_list_of_servers_is_refused_with_an_example(servers):
    message = refusal(LATELY_KAFKA=servers)

    assert message.startswith("LATELY_KAFKA: ")
    assert "127.0.0.1:9092" in message


@pytest.mark.parametrize("name", ["LATELY_ID", "LATELY_TOPIC_PREFIX"])
@pytest.mark.parametrize("text", ["a b", "a/b", "ä", "a\n", "a:b", "x" * 101])
def test_a_name_that_kafka_would_refuse_is_refused(name, text):
    assert refusal(**{name: text}).startswith(f"{name}: ")


def test_the_app_needs_a_name_but_topics_need_no_prefix():
    assert refusal(LATELY_ID="").startswith("LATELY_ID: ")
    assert read(LATELY_TOPIC_PREFIX="").topic_prefix == ""


def test_the_outbox_is_in_a_schema_of_its_own_or_where_the_setting_says():
    assert read(LATELY_MYSQL_DATABASE="shop").outbox == ("shop_lately", "purchase_outbox")
    assert read(LATELY_MYSQL_DATABASE="shop", LATELY_SOURCE_OUTBOX="changes").outbox == ("shop", "changes")
    assert read(LATELY_MYSQL_DATABASE="shop", LATELY_SOURCE_OUTBOX="capture.changes").outbox == ("capture", "changes")
    assert read(LATELY_MYSQL_DATABASE="d" * 58).outbox == ("d" * 58, "purchase_outbox")


@pytest.mark.parametrize("text", ["a.b.c", ".a", "a.", "a`b.c", "x" * 58, "y" * 65 + ".x"])
def test_an_outbox_that_is_neither_a_table_nor_a_schema_and_a_table_is_refused(text):
    assert refusal(LATELY_SOURCE_OUTBOX=text).startswith("LATELY_SOURCE_OUTBOX: ")


@pytest.mark.parametrize("name", ["LATELY_SOURCE_TABLE", "LATELY_MYSQL_DATABASE"])
@pytest.mark.parametrize("text", ["", "a`b", "a\x00", "a/b", "a\\b", "x" * 65])
def test_a_name_that_cannot_be_a_tables_is_refused(name, text):
    assert refusal(**{name: text}).startswith(f"{name}: ")


def test_columns_keep_their_names_unless_the_shop_names_them_otherwise():
    assert Settings().columns == {name: name for name in COLUMNS}

    columns = read(LATELY_SOURCE_COLUMNS="user_id=customer, price = amount ,").columns

    assert columns == {**{name: name for name in COLUMNS}, "user_id": "customer", "price": "amount"}


def test_a_column_may_have_blanks_and_equal_signs_in_its_name():
    assert read(LATELY_SOURCE_COLUMNS="user_id=a b=c").columns["user_id"] == "a b=c"


@pytest.mark.parametrize("pair", ["user_id", "user_id=", "=customer", "user_id=a`b", "user_id:customer"])
def test_a_column_that_is_not_a_pair_is_refused(pair):
    assert refusal(LATELY_SOURCE_COLUMNS=pair).startswith("LATELY_SOURCE_COLUMNS: ")


@pytest.mark.parametrize(
    ("columns", "nearest"),
    [("user=customer", "user_id"), ("price=amount,product=name", "product_name"), ("USER_ID=u", "user_id")],
)
def test_an_unknown_column_is_refused_with_the_nearest_name(columns, nearest):
    message = refusal(LATELY_SOURCE_COLUMNS=columns)

    assert message.endswith(f"did you mean {nearest}?")


def test_secrets_are_masked_when_settings_are_shown():
    displayed = read(LATELY_MYSQL_PASSWORD="hunter2", LATELY_MYSQL_USER="lately").to_display()

    assert displayed["mysql_password"] == "***"
    assert displayed["mysql_user"] == "lately"
    assert "hunter2" not in str(displayed)
    assert list(displayed) == [f.name for f in FIELDS]


def test_a_secret_that_is_not_set_is_not_masked():
    assert Settings().to_display()["mysql_password"] == ""


def test_a_secret_does_not_show_in_a_traceback_or_a_log():
    assert "hunter2" not in repr(read(LATELY_MYSQL_PASSWORD="hunter2"))


def test_fausts_datadir_beats_ours():
    assert read(F_DATADIR="/var/lib/one", LATELY_DATA_DIR="/var/lib/two").data_dir == "/var/lib/one"
    assert read(LATELY_DATA_DIR="/var/lib/two").data_dir == "/var/lib/two"


@pytest.mark.parametrize("template", ["{conf.name}-data", "{appdir}"])
def test_fausts_datadir_is_left_alone_while_it_is_a_template(template):
    assert read(F_DATADIR=template, LATELY_DATA_DIR="/var/lib/two").data_dir == "/var/lib/two"


def test_an_empty_datadir_of_fausts_does_not_count():
    # Empty means unset to a shell; taken as a folder, it would put the tables into the current one.
    assert read(F_DATADIR="").data_dir == Settings().data_dir


def test_a_column_of_traces_can_be_named_and_is_no_part_of_an_order():
    named = read(LATELY_SOURCE_COLUMNS="traceparent=trace,price=amount")
    assert named.traceparent_column == "trace"
    assert set(named.columns) == set(COLUMNS)
    assert Settings().traceparent_column is None


SECRETS = [f.name for f in FIELDS if f.metadata["secret"]]


def test_passwords_and_what_things_are_signed_with_are_the_secrets():
    assert SECRETS == ["kafka_sasl_password", *SIGNING, "cursor_secret", "mysql_password"]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_is_read_from_a_file_without_the_line_end(tmp_path, name, end):
    file = tmp_path / "secret"
    file.write_bytes(f" {SECRET} ü\n{end}".encode())

    required = {key: text for key, text in required_with(name, {}).items() if key != name}

    settings = read(
        **{f"LATELY_{key.upper()}": text for key, text in required.items()},
        **{f"LATELY_{name.upper()}_FILE": str(file)},
    )

    # Only one line end is an editor's; anything else belongs to the secret.
    assert settings == dataclasses.replace(Settings(), **required, **{name: f" {SECRET} ü" + ("\n" if end else "")})
    assert settings.to_display()[name] == "***"
    assert list(settings.to_display()) == [f.name for f in FIELDS]


def test_a_secret_from_a_file_has_to_be_long_enough_too(tmp_path):
    (tmp_path / "secret").write_text(SECRET[1:])

    message = refusal(LATELY_TOKEN_SECRET_FILE=str(tmp_path / "secret"))

    assert message.startswith("LATELY_TOKEN_SECRET must have 16 bytes or more")
    assert SECRET[1:] not in message


@pytest.mark.parametrize("text", [SECRET, ""])
def test_a_secret_that_is_given_twice_is_refused(tmp_path, text):
    (tmp_path / "secret").write_text(SECRET)

    assert refusal(LATELY_MYSQL_PASSWORD=text, LATELY_MYSQL_PASSWORD_FILE=str(tmp_path / "secret")) == (
        "LATELY_MYSQL_PASSWORD and LATELY_MYSQL_PASSWORD_FILE exclude each other: unset one of them"
    )


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\xffsecret", "cannot be read (it is not UTF-8 text)"),
        (b"", "is empty"),
        (b"\n", "is empty"),
    ],
)
def test_a_file_without_a_secret_is_refused_by_name(tmp_path, content, cause):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)

    message = refusal(LATELY_CURSOR_SECRET_FILE=str(file))

    assert message.startswith(f"LATELY_CURSOR_SECRET_FILE: '{file}' {cause}")
    assert "ÿ" not in message


@pytest.mark.parametrize("path", ["", "/"])
def test_a_path_that_is_no_files_is_refused(path):
    assert refusal(LATELY_MYSQL_PASSWORD_FILE=path).startswith(f"LATELY_MYSQL_PASSWORD_FILE: {path!r} cannot be read (")


def test_only_secrets_are_read_from_files():
    assert refusal(LATELY_KAFKA_FILE="x").startswith("unknown setting LATELY_KAFKA_FILE; did you mean LATELY_")
    assert refusal(LATELY_MYSQL_PASSWORD_FILES="x").endswith("did you mean LATELY_MYSQL_PASSWORD_FILE?")


@pytest.mark.parametrize("text", ["lately_trigger", "@localhost", "a@b@", "a`@%", "a@b c"])
def test_a_definer_has_a_user_and_a_host(text):
    assert refusal(LATELY_SOURCE_DEFINER=text).endswith("is not user@host, for example lately_trigger@localhost")
