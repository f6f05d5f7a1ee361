"""What the author of a dump can write, and what an environment can contain."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadDump, BadSetting
from app.settings import Settings
from commands.tables.dump_file import MAX_FRAME_BYTES, DumpHead, PairsFrame, RecordsFrame, read_frames, verify_dump
from tests.kit.fuzz import fuzz, inputs, samples, texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files of one test after the other."""
    return tmp_path_factory.mktemp("fuzz")


@fuzz
@given(content=st.one_of(inputs("dump"), inputs("dump_frames").map(lambda frames: gzip.compress(frames, 1))))
def test_a_dump_is_read_or_bad(folder: Path, content: bytes):
    path = folder / "dump"
    path.write_bytes(content)
    frames = []
    try:
        frames += read_frames(path)
        head = verify_dump(path)
    except BadDump:
        # What was read before the error is bounded by the file: gzip repeats a byte 1,032 times at most.
        assert len(repr(frames)) <= 10 * 1_032 * len(content) + 10_000
        return
    assert isinstance(head, DumpHead)
    assert all(isinstance(frame, PairsFrame | RecordsFrame) for frame in frames[1:-1])


def test_every_sample_of_a_dump_is_read(folder: Path):
    for content in samples("dump"):
        (folder / "dump").write_bytes(content)
        assert verify_dump(folder / "dump").keys == 2


@pytest.mark.parametrize("size", [MAX_FRAME_BYTES, 2**32 - 1])
def test_a_frame_that_is_too_large_is_not_read(folder: Path, size: int):
    (folder / "large").write_bytes(gzip.compress(size.to_bytes(4, "big") + bytes(100), 1))
    with pytest.raises(BadDump):
        list(read_frames(folder / "large"))


NAMES = [f"LATELY_{name.upper()}{suffix}" for name in Settings.__dataclass_fields__ for suffix in ("", "_FILE")]


def variables(text: str) -> dict[str, str]:
    parts = (line.partition("=") for line in text.split("\n"))
    return {name: value.replace("\0", "") for name, _, value in parts}


@fuzz
@given(
    st.one_of(
        texts("settings").map(variables),
        st.dictionaries(
            st.sampled_from(NAMES), st.text(st.characters(exclude_characters="\0"), max_size=50), max_size=3
        ),
        st.dictionaries(st.sampled_from(NAMES), texts("settings").map(lambda text: text[-40:].replace("\0", ""))),
    )
)
def test_settings_are_valid_or_bad(environment: dict[str, str]):
    try:
        settings = Settings.from_env(environment)
    except BadSetting as exc:
        # The message can be printed.
        str(exc).encode(errors="backslashreplace")
        return
    settings.check()
    assert set(settings.to_display()) == set(Settings.__dataclass_fields__)


def test_every_sample_of_the_settings_is_valid():
    for sample in samples("settings"):
        environment = variables(sample.decode())
        Settings.from_env({"LATELY_TOKEN_SECRET": "x" * 16, **environment})
