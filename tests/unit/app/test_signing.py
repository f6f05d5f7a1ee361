"""Signatures: who can make them, and what they cover."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from app.settings import Settings
from app.signing import Signer, WorkerAddresses, state_signer

KEY, OTHER = "a key of sixteen bytes", "another key of sixteen bytes"
PARTS = st.lists(st.binary(max_size=5), max_size=3)


@given(PARTS, PARTS)
def test_a_signature_is_valid_for_its_parts_only(parts, others):
    signer = Signer([KEY.encode()])
    signature = signer.sign("state", *parts)
    assert signer.is_valid(signature, "state", *parts)
    assert signer.is_valid(signature, "state", *others) == (parts == others)
    assert not signer.is_valid(signature, "address", *parts)
    assert not Signer([OTHER.encode()]).is_valid(signature, "state", *parts)


def test_after_a_rotation_former_signatures_are_valid_but_not_the_newest():
    former, rotated = Signer([KEY.encode()]), Signer([OTHER.encode(), KEY.encode()])
    signature = former.sign("state", b"x")
    assert rotated.is_valid(signature, "state", b"x")
    assert not rotated.is_newest(signature, "state", b"x")
    assert rotated.is_newest(rotated.sign("state", b"x"), "state", b"x")


def test_without_a_key_nothing_is_signed_and_nothing_is_refused():
    signer = state_signer(Settings(token_secret=KEY))
    assert not signer.has_keys
    assert signer.sign("state", b"x") == ""
    assert signer.is_valid("anything \udcff", "state", b"x") is True


def test_text_that_is_no_signature_is_none():
    assert not Signer([KEY.encode()]).is_valid("ü", "state", b"x")


def test_addresses_are_signed_with_the_secret_of_tokens_if_there_is_no_key():
    settings = Settings(token_secret=KEY)
    addresses = WorkerAddresses(settings)
    signature = addresses.sign("http://a:1")
    assert addresses.is_trusted("http://a:1", signature)
    assert not addresses.is_trusted("http://b:1", signature)
    assert not addresses.is_trusted("http://a:1", "")
    assert not WorkerAddresses(dataclasses.replace(settings, id="other")).is_trusted("http://a:1", signature)
    rotated = Settings(token_secret=OTHER, token_secret_previous=KEY)
    assert WorkerAddresses(rotated).is_trusted("http://a:1", signature)
    assert not WorkerAddresses(Settings(signing_key=OTHER, token_secret=KEY)).is_trusted("http://a:1", signature)
