"""JSON that parsers other than Python's read."""

from __future__ import annotations

import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import strict_json
from pipeline.spec import AnnotateSpec, TranscribeSpec

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=8,
)


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_what_json_cannot_write() -> None:
    value = {
        "rate": math.inf,
        "all": [1.5, -math.inf, {"nan": math.nan}],
        "of": (os.fsdecode(b"mod\xe0"), "é"),
    }
    assert strict_json.dumps(value) == (
        '{"rate": null, "all": [1.5, null, {"nan": null}], "of": ["mod\ufffd", "é"]}'
    )
    assert strict_json.dumps({"a": 1}, indent=2) == '{\n  "a": 1\n}'


@given(VALUES)
def test_any_value_is_standard_json_in_utf_8(value: object) -> None:
    text = strict_json.dumps({"value": value}).encode().decode()
    json.loads(text, parse_constant=refuse)


def test_settings_are_finite() -> None:
    least = {"input": ["in"], "output": "out", "model": "m"}
    for unset in ("inf", "Infinity", math.inf, "1e999", None):
        assert TranscribeSpec(**least, max_duration_s=unset).public()["max_duration_s"] is None
    for field in ("max_duration_s", "window_s", "overlap_s", "num_gpus_per_actor", "max_error_rate"):
        for value in (math.nan, -math.inf, *([] if field == "max_duration_s" else [math.inf])):
            with pytest.raises(ValueError, match="finite number"):
                TranscribeSpec(**least, **{field: value})
    least = {"input": ["in"], "output": "out", "transcribe": "m", "diarize": "m"}
    for field in ("lm_weight", "word_score", "onset", "offset", "min_on_s", "min_off_s"):
        for value in (math.nan, math.inf):
            with pytest.raises(ValueError, match="finite number"):
                AnnotateSpec(**least, **{field: value})
