"""The log is text or JSON, says which event it is about, and does not quote the shop's data."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest

from app.logs import (
    REPEAT_AFTER_S,
    MaskingFormatter,
    RepetitionFilter,
    configure_handlers,
    event_fields,
    mask_values,
)
from app.settings import Settings
from domain.events import read_references
from tests.kit.makers import event, wire

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Duplicate entry 'ann-o-1' for key 'PRIMARY'", "Duplicate entry '***' for key 'PRIMARY'"),
        ("Incorrect decimal value: '19.90' for column 'price'", "Incorrect decimal value: '***' for column 'price'"),
        ("type 'ann\\'s' is none of order.placed", "type '***' is none of order.placed"),
        ('dataschema "ann" is not', 'dataschema "***" is not'),
        ("Incorrect string value: 'ann is cut off here", "Incorrect string value: '***'"),
        ("no answer from MySQL as root@db:3306/shop", "no answer from MySQL as root@db:3306/shop"),
    ],
)
def test_values_that_an_error_quotes_are_masked_and_names_are_not(text, masked):
    assert mask_values(text) == masked


def logged(settings: Settings, *args: object, **options: object) -> str:
    stream, logger = io.StringIO(), logging.Logger("orders")
    logger.addHandler(logging.StreamHandler(stream))
    configure_handlers(logger, settings)
    logger.warning(*args, **options)
    return stream.getvalue()


def test_a_line_of_json_has_what_is_known_of_the_event():
    extra = event_fields("o-1", TRACE, topic="orders", partition=2, offset=7)
    line = logged(Settings(log="json"), "row %d: Duplicate entry '%s'", 3, "ann", extra=extra)
    fields = json.loads(line)
    assert line.count("\n") == 1
    assert fields.pop("time").endswith("Z")
    assert fields == {
        "level": "warning", "logger": "orders", "message": "row 3: Duplicate entry '***'", "topic": "orders",
        "partition": 2, "offset": 7, "order_id": "o-1", "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }  # fmt: skip


def test_a_failure_is_one_line_of_json_too_and_masked():
    try:
        raise ValueError("Duplicate entry 'ann'")
    except ValueError as exc:
        line = logged(Settings(log="json"), "failed", exc_info=exc)
    assert line.count("\n") == 1
    assert "test_logs.py" in json.loads(line)["exception"]
    assert "ann'" not in line


def test_whoever_asks_for_personal_data_gets_it_and_text_is_masked_as_well():
    assert "'ann'" in logged(Settings(log_pii=True), "Duplicate entry 'ann'")
    assert logged(Settings(), "Duplicate entry 'ann'") == "Duplicate entry '***'\n"


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'{"data":1}', b'{"data":{"order_id":[]}}', b"\xff"])
def test_what_cannot_be_read_names_no_order(value):
    assert read_references(value) == (None, None)


def test_an_event_that_breaks_a_rule_names_its_order_and_its_trace():
    assert read_references(wire(event(order_id="o-7", price="x", traceparent=TRACE))[1]) == ("o-7", TRACE)
    assert event_fields("o-7", "no trace") == {"order_id": "o-7"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def complaining(name: str, form: MaskingFormatter) -> tuple[logging.Logger, Clock, io.StringIO]:
    """A logger, the clock that its filter looks at, and what comes out."""
    stream, clock, logger = io.StringIO(), Clock(), logging.Logger(name)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(form)
    handler.addFilter(RepetitionFilter(clock))
    logger.addHandler(handler)
    return logger, clock, stream


def test_what_a_library_repeats_is_said_once_in_a_while_with_the_number_of_times():
    logger, clock, stream = complaining("aiokafka.conn", MaskingFormatter(logging.Formatter(), False))
    for _ in range(400):
        for node in range(2):
            logger.error("Unable connect to node with id %s", node)
    clock.now += REPEAT_AFTER_S
    logger.error("Unable connect to node with id %s", 0)
    assert stream.getvalue().splitlines() == [
        "Unable connect to node with id 0",
        "Unable connect to node with id 1",
        "Unable connect to node with id 0 (and 399 times more since it was logged last)",
    ]


def test_of_one_wording_the_first_complaints_are_told_apart_and_the_others_count_as_one():
    logger, clock, stream = complaining("aiokafka.producer", MaskingFormatter(logging.Formatter(), False))
    for _ in range(100):
        for partition in range(1_100):
            logger.warning("Got error on %s", partition)
        logger.warning("something else")
    lines = stream.getvalue().splitlines()
    assert lines == [*(f"Got error on {partition}" for partition in range(21)), "something else"]
    clock.now += REPEAT_AFTER_S
    for partition in range(1_100):
        logger.warning("Got error on %s", partition)
    repeated = re.findall(r"and ([0-9,]+) times more", stream.getvalue())
    assert len(repeated) == 21
    assert sum(int(number.replace(",", "")) for number in repeated) == 100 * 1_100 - 21


def test_complaints_that_differ_each_time_are_held_back_too():
    logger, clock, stream = complaining("mode.timers", MaskingFormatter(logging.Formatter(), False))
    for number in range(1_000):
        logger.info("Timer is late")
        logger.warning("Timer is overlapping (%r)", number / 7)
        clock.now += REPEAT_AFTER_S / 100
    assert 10 <= len(stream.getvalue().splitlines()) - 1_000 <= 10 * 21


def test_a_complaint_that_cannot_be_written_does_not_harm_whoever_makes_it(capsys):
    logger, _, stream = complaining("aiokafka.conn", MaskingFormatter(logging.Formatter(), False))
    logger.warning("of %s and %s", 1)
    assert stream.getvalue() == ""
    assert "not enough arguments" in capsys.readouterr().err


def test_a_worker_holds_back_what_libraries_repeat():
    stream, root = io.StringIO(), logging.Logger("aiokafka.conn")
    root.addHandler(logging.StreamHandler(stream))
    configure_handlers(root, Settings())
    for _ in range(3):
        root.error("no")
    assert stream.getvalue().splitlines() == ["no"]


def test_in_json_the_number_of_times_is_a_field():
    logger, clock, stream = complaining("aiokafka.conn", MaskingFormatter(None, False))
    for _ in range(3):
        logger.error("no")
    clock.now += REPEAT_AFTER_S
    logger.error("no")
    first, repeated = map(json.loads, stream.getvalue().splitlines())
    assert "again" not in first
    assert repeated["again"] == 2


@pytest.mark.parametrize(
    ("name", "level", "exc_info"),
    [
        ("source", logging.ERROR, None),
        ("aiokafka.conn", logging.INFO, None),
        ("aiokafka.conn", logging.ERROR, ValueError("no")),
        ("mode.redirect", logging.WARNING, None),
    ],
)
def test_what_lately_says_what_is_no_complaint_and_what_has_a_traceback_is_never_held_back(name, level, exc_info):
    logger, _, stream = complaining(name, MaskingFormatter(logging.Formatter(), False))
    for _ in range(3):
        logger.log(level, "said", exc_info=exc_info)
    assert stream.getvalue().splitlines().count("said") == 3


def test_complaints_that_never_come_again_are_not_remembered_for_ever():
    logger, _, stream = complaining("faust.app", MaskingFormatter(logging.Formatter(), False))
    seldom = logger.handlers[0].filters[0]
    for number in range(5_000):
        logger.error(f"no {number}")
    assert len(stream.getvalue().splitlines()) == 5_000
    assert len(seldom._repetitions) <= 1_000
