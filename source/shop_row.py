"""Decoding of a row's JSON, which `columns.payload_expression` builds: one result for all readers.

The source, snapshots, verifications, reports, traces and responses from MySQL read the shop's rows.
A row is shown by all of them, or by none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from domain.codec import UNDECODABLE
from domain.events import FIELD_RULES, OrderLine, find_broken_rule
from domain.prices import canonical_price

#: The time of the removal of a purchase whose own time is invalid.
NO_TIME = "1970-01-01T00:00:00Z"

_decode = msgspec.json.Decoder(dict[str, object]).decode
# msgspec names the field that has the wrong type: "… - at `$.price`".
_FIELD = re.compile(r"`\$\.(\w+)")


class DecodedRow(NamedTuple):
    """A decoded row: its fields, its order line, or None and the rule that it breaks."""

    fields: dict[str, object]
    line: OrderLine | None
    broken_rule: str | None


def decode_row(payload: str | bytes, version: int = 0) -> DecodedRow:
    """Decode the JSON of a row."""
    try:
        fields = normalize(_decode(payload))
    except UNDECODABLE as exc:
        return DecodedRow({}, None, f"the row must be a JSON object with text in UTF-8 ({exc})")
    try:
        line = msgspec.convert({**fields, "version": version}, OrderLine)
    except msgspec.ValidationError as exc:
        field = _FIELD.search(str(exc))
        return DecodedRow(fields, None, FIELD_RULES.get(field[1], str(exc)) if field else str(exc))
    broken_rule = find_broken_rule(line)
    return DecodedRow(fields, None if broken_rule else line, broken_rule)


def normalize(fields: dict[str, object]) -> dict[str, object]:
    """Return the fields of a row with the valid spelling of its price, if its value is valid."""
    price = fields.get("price")
    canonical = canonical_price(price) if isinstance(price, str) else None
    return fields if canonical is None or canonical == price else {**fields, "price": canonical}


def build_removal(fields: dict[str, object]) -> dict[str, object] | None:
    """Return the fields that remove the purchase of a row that breaks a rule.

    Only the identity of the purchase is taken from the row. Returns None if it is invalid.
    """
    identity = {name: fields.get(name) for name in ("user_id", "order_id", "product_name")}
    removal = {**identity, "price": "0", "ordered_at": NO_TIME, "payment_method": None, "category": None}
    try:
        line = msgspec.convert({**removal, "version": 0}, OrderLine)
    except msgspec.ValidationError:
        return None
    return None if find_broken_rule(line) else removal
