"""The list of error codes, and its documentation."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import ClipError, ClipFailedError, Code, Stage

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")


def test_every_code_is_documented() -> None:
    table = DOCUMENT.split("| code | meaning |", 1)[1].split("\n\n", 1)[0]
    assert re.findall(r"^\| `(\w+)` \| .+ \|$", table, re.MULTILINE) == [code.value for code in Code]


def test_every_stage_is_documented() -> None:
    (row,) = re.findall(r"^\| `stage` \| (.+?):", DOCUMENT, re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == [stage.value for stage in Stage]


def test_a_failure_becomes_a_row_of_plain_strings() -> None:
    failure = ClipFailedError(Stage.DECODE, Code.EMPTY, "no bytes")
    assert str(failure) == "no bytes"
    assert failure.error == ClipError(Stage.DECODE, Code.EMPTY, "no bytes")
    row = failure.error.as_row()
    assert row == {"stage": "decode", "code": "empty", "message": "no bytes"}
    assert {type(value) for value in row.values()} == {str}
