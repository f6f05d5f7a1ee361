"""What `lately report` is asked wrongly it refuses before it reads or writes anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.errors import EX_USAGE
from commands.report.command import report
from domain.errors import LatelyError

SPAN = ("--from", "2026-01-30", "--to", "2026-02-03")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("sales", "--from", "2026-02-01", "--to", "2026-01-31"), "exchange them"),
        (("sales", "--from", "2026-02-30", "--to", "2026-03-31"), "--from"),
        (("sales", "--from", "2026-01-01"), "--to"),
        (("sale", *SPAN), "No such command"),
        (("sales", *SPAN, "--out", "there"), "--force"),
        (("sales", *SPAN, "--out", "no/out.csv"), "is not a folder"),
        (("sales", *SPAN, "--out", "/proc/out.csv"), "cannot be written"),
        (("sales", *SPAN, "--tz", "Mars/Olympus"), "IANA"),
        (("sales", *SPAN, "--format", "parquet"), "is not one of"),
        (("sales", *SPAN, "--out", "out.parquet"), "removed in 0.2.0"),
        (("sales", *SPAN, "--format", "pdf"), "pdf"),
        (("sales", *SPAN, "--by", "month"), "month"),
        (("sales", "--from", "1900-01-01", "--to", "2026-01-01", "--by", "hour"), "--by day"),
        (("products", *SPAN, "--limit", "0"), "--limit"),
        (("payments", *SPAN, "--rank", "price"), "price"),
        (("sales", *SPAN, "--compare", "there"), "no report"),
        (("sales", *SPAN, "--compare", "missing"), "cannot be read"),
        (("sales", *SPAN, "--source", "mysql", "--as-of", "0:1"), "--source log"),
        (("sales", *SPAN, "--source", "mysql", "--check"), "lately verify"),
        (("daily", "--day", "2026-02-30"), "--day"),
        (("show", "missing.json"), "cannot be read"),
        (("diff", "there", "there"), "no report"),
        (("list", "nowhere"), "the folder nowhere does not exist"),
    ],
)
def test_a_wrong_question_is_refused_with_its_cause_and_nothing_is_written(
    words: tuple[str, ...], cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    # Nobody answers there, and nobody is asked.
    monkeypatch.setenv("LATELY_KAFKA", "127.0.0.1:1")
    # The tests that come after this one go on as before.
    monkeypatch.setattr(os, "nice", lambda step: 0)
    Path("there").write_text("{}")
    done = CliRunner().invoke(report, words)
    error = done.exception
    code = error.exit_code if isinstance(error, LatelyError) else done.exit_code
    said = str(error) if isinstance(error, LatelyError) else done.output
    assert code == EX_USAGE, done.output
    assert cause.lower() in said.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert Path("there").read_text() == "{}"
