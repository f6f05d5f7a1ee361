"""Input for fuzz tests: arbitrary bytes, and mutations of valid samples from tests/fuzz/corpus."""

from __future__ import annotations

from functools import cache

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.kit.depth import examples
from tests.kit.stack import ROOT

CORPUS = ROOT / "tests" / "fuzz" / "corpus"
#: Decorates a fuzz test: how much it tries.
fuzz = settings(examples(600), suppress_health_check=[HealthCheck.too_slow])
#: Deeper than any decoder follows.
NESTING = 100_000
#: Length fields and numbers at the limits of their types, in the encodings of Kafka, msgpack and JSON.
_EXTREMES = [
    b"\x00" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + b"\x00" * 7, b"\xff\xff", b"\x7f\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8,
    b"-1", b"1e999", b"9223372036854775808", b"99999999999999999999999", b"NaN", b"null", b"[]", b"{}", b'""',
    b'"\\ud800"', b"\\u0000", "é😀\u0663".encode(), b"\x1b[2J", b"\r\n", b";" * 50, b"," * 50,
]  # fmt: skip


@cache
def samples(decoder: str) -> tuple[bytes, ...]:
    """Return the valid samples of a decoder."""
    return tuple(path.read_bytes() for path in sorted((CORPUS / decoder).iterdir()))


def inputs(decoder: str) -> st.SearchStrategy[bytes]:
    """Return a strategy for valid, mutated and arbitrary input of a decoder."""
    return st.one_of(_mutated(decoder), st.sampled_from(samples(decoder)), st.binary(max_size=300))


def texts(decoder: str) -> st.SearchStrategy[str]:
    """Return a strategy as `inputs`, decoded as aiohttp and the environment decode bytes."""
    return inputs(decoder).map(lambda data: data.decode("utf-8", "surrogateescape"))


@st.composite
def _mutated(draw: st.DrawFn, decoder: str) -> bytes:
    data = draw(st.sampled_from(samples(decoder)))
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.sampled_from(["flip", "replace", "delete", "repeat", "cut", "splice"])):
            case "flip" if start < len(data):
                data = data[:start] + bytes((data[start] ^ draw(st.integers(1, 255)),)) + data[start + 1 :]
            case "replace":
                new = draw(st.one_of(st.sampled_from(_EXTREMES), st.binary(max_size=8)))
                data = data[:start] + new + data[draw(st.sampled_from([start, start + len(new), end])) :]
            case "delete":
                data = data[:start] + data[end:]
            case "repeat":
                data = data[:end] + data[start:end] * draw(st.integers(1, 8)) + data[end:]
            case "cut":
                data = data[:start]
            case "splice":
                other = draw(st.sampled_from(samples(decoder)))
                data = data[:start] + other[min(start, len(other)) :]
    return data
