"""A spec of any values is made, or refused with the name of the field."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.cli import read_spec
from pipeline.errors import JobError
from pipeline.spec import AnnotateSpec

LEAST: dict[str, Any] = {"input": ["in"], "output": "out", "transcribe": "m"}
NAMES = [name for part in AnnotateSpec.parts().values() for name in part.model_fields] + ["transcribe"]
VALUES: list[Any] = [
    *(None, True, 0, 1, -1, 10**9, 10**30, 0.3, 1e300, 1e308, float("inf"), float("-inf"), float("nan")),
    *(
        "",
        "²",
        "٣",
        "inf",
        "nan",
        "9" * 30,
        "9" * 5000,
        "999999999999999d",
        "0001-01-01",
        "9999-12-31T23:59-12:00",
    ),
    *("1:99999999999999999999", "a\0b", "\ud800", [], {}, [""], [[]], ["a", 7], {"key": 7}),
]


@given(name=st.sampled_from(NAMES), value=st.sampled_from(VALUES) | st.integers() | st.floats() | st.text())
def test_any_value_of_any_field(name: str, value: Any) -> None:
    refused = spec = None
    try:
        spec = AnnotateSpec(**{**LEAST, name: value})
    except ValidationError as problem:
        refused = str(problem)
    if spec is None:
        assert refused is not None
        assert name in refused
        return
    json.dumps(spec.public(), allow_nan=False)
    if name == "window_s":
        assert 0 < round(spec.compute.window_s / 0.02) < 2**31
    if name == "channel" and spec.corpus.channel not in ("mean", "left", "right"):
        assert int(spec.corpus.channel) >= 0
    if name == "num_actors" and spec.compute.num_actors != "auto":
        assert all(0 < int(size) < 2**31 for size in spec.compute.num_actors.split(":"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channel", "²"),
        ("channel", "9" * 5000),
        ("since", "999999999999999d"),
        ("window_s", "inf"),
        ("window_s", 1e308),
        ("lm_weight", "nan"),
        ("min_on_s", 1e308),
        ("limit", 10**30),
        ("token_budget", 10**30),
        ("rows_per_file", 10**30),
        ("beam_size", 10**30),
        ("featurize_actors", 10**30),
        ("num_actors", "9" * 30),
        ("num_gpus_per_actor", 1.5),
        ("num_gpus_per_actor", 0.00001),
        ("input", ""),
    ],
)
def test_absurd_values_are_refused_by_field(name: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps({**LEAST, name: value}))
    with pytest.raises(JobError, match=name):
        read_spec(AnnotateSpec, ["--config", str(tmp_path / "job.yaml")], program="job", environment={})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("since: 2026-13-45", "since: must be a time"),
        (f"limit: {'9' * 5000}", "limit: Unable to parse input string as an integer"),
    ],
)
def test_a_value_that_yaml_takes_for_another_is_told_as_any(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(JobError, match=rf"{told}.*job\.yaml, line 1"):
        read_spec(AnnotateSpec, ["--config", str(tmp_path / "job.yaml")], program="job", environment={})


@pytest.mark.parametrize(
    ("name", "value"), [("num_gpus_per_actor", 0.25), ("num_gpus_per_actor", 2), ("channel", 3)]
)
def test_values_of_sense_are_taken(name: str, value: Any) -> None:
    spec = AnnotateSpec(**{**LEAST, name: value})
    assert str(typing.cast(dict, spec.public())[name]) in (str(value), f"{value}.0")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[" * 2000, "a: !!python/object:os.system x"])
def test_a_file_that_yaml_itself_refuses(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(JobError, match=r"job\.yaml is not YAML"):
        read_spec(AnnotateSpec, ["--config", str(tmp_path / "job.yaml")], program="job", environment={})
