"""Where settings come from: the environment alone, files whose values are text, what a message names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jobs.cli.console import Console
from jobs.cli.declarations import all_options, all_variables, declarations
from jobs.cli.settings import read, read_spec
from pipeline.errors import JobError
from pipeline.spec import AnnotateSpec, TranscribeSpec
from pipeline.training.spec import FinetuneSpec
from tests.conftest import ROOT

ENVIRONMENT = {"W2VBERT_INPUT": "a b", "W2VBERT_OUTPUT": "out", "W2VBERT_MODEL": "m"}
LEAST = ["--input", "in", "--output", "out", "--model", "m"]


def told(*arguments: str, environment: dict[str, str] | None = None) -> TranscribeSpec:
    return read_spec(TranscribeSpec, arguments, program="jobs/transcribe.py", environment=environment or {})


def refused(*arguments: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(JobError) as caught:
        told(*arguments, environment=environment)
    return str(caught.value)


def test_the_environment_is_enough() -> None:
    spec = told(environment=ENVIRONMENT)
    assert (spec.corpus.input, spec.table.output, spec.models) == (["a", "b"], "out", {"transcribe": "m"})


def test_nothing_at_all_is_answered_by_the_short_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        told(environment={"W2VBERT_BACKEND": "torch", "HOME": "/root"})
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python jobs/transcribe.py [INPUT ...]")


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("input: in\noutput: of file\nmodel: m\n")
    environment = {"W2VBERT_CONFIG": str(file), "W2VBERT_OUTPUT": "of environment"}
    assert told(environment=environment).table.output == "of file"


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("W2VBERT_OUPTUT", "W2VBERT_OUTPUT"),
        ("W2VBERT_STORAGE_REGOIN", "W2VBERT_STORAGE_REGION"),
        ("W2VBERT_CONFG", "W2VBERT_CONFIG"),
        ("W2VBERT_BAKCEND", "W2VBERT_BACKEND"),
        ("W2VBERT_TRAILS", "W2VBERT_TRIALS"),  # of another job
    ],
)
def test_a_misspelt_variable_names_the_nearest(name: str, close: str) -> None:
    said = refused(*LEAST, environment={name: "x"})
    assert said == f"{name}: no job knows this environment variable; did you mean '{close}'?"


def test_variables_of_other_jobs_are_left_alone() -> None:
    environment = {"W2VBERT_TRIALS": "t", "W2VBERT_SHARED": "s", "W2VBERT_LEARNING_RATE": "x", "W2V": "y"}
    assert told(*LEAST, environment=environment) == told(*LEAST)


def test_every_variable_that_the_project_reads_is_known() -> None:
    known = all_variables() | {option.variable for option in all_options(TranscribeSpec)}
    named = set()
    for folder in ("jobs", "pipeline", "w2vbert", "bench", "demo", "examples"):
        for file in (ROOT / folder).rglob("*.py"):
            named |= set(re.findall(r"W2VBERT_[A-Z]\w*", file.read_text("utf-8")))
    known |= {f"W2VBERT_{name}" for name in ("CONFIG", "BACKEND", "SHARED", "SOAK")}
    assert "W2VBERT_BACKEND" in named
    assert named - known == set()


def test_a_wrong_value_names_the_variable_or_the_line(tmp_path: Path) -> None:
    said = refused(environment={**ENVIRONMENT, "W2VBERT_DTYPE": "float23"})
    assert said.splitlines()[0] == (
        "dtype: Input should be 'auto', 'float32', 'bfloat16' or 'float16'; "
        "did you mean 'float32'? (W2VBERT_DTYPE)"
    )
    file = tmp_path / "job.yaml"
    file.write_text("# nightly\noutput: o\n\ntoken_budget: many\nstorage:\n  anonymous: perhaps\n")
    said = refused(*LEAST, "--config", str(file))
    assert re.search(rf"^token_budget: .* \({file}, line 4\)$", said, re.MULTILINE)
    assert re.search(rf"^storage_anonymous: .* \({file}, line 6\)$", said, re.MULTILINE)
    assert said.endswith("see: python jobs/transcribe.py --help")
    # What wins is what is named.
    said = refused(*LEAST, "--config", str(file), "--token-budget", "0")
    assert "\ntoken_budget: Input should be greater than or equal to 1\n" in said


def test_an_unknown_field_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("input: in\n\nouptut: x\n")
    assert refused("--config", str(file)) == (
        f"--config {file}, line 3: unknown field 'ouptut'; did you mean 'output'?"
    )


def test_a_field_that_is_given_twice(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("output: a\ninput: in\noutput: b\n")
    assert refused("--config", str(file)) == f"--config {file}: lines 1 and 3 both give 'output'"


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("num_actors: 1:4", "num_actors", "1:4"),
        ("num_actors: 4", "num_actors", "4"),
        ("num_actors: 1:30", "num_actors", "1:30"),
        ("output: off", "output", "off"),
        ("output: 2026-11-24", "output", "2026-11-24"),
        ("output: 007", "output", "007"),
        ("output: 1_000", "output", "1_000"),
        ("model: yes", "model", "yes"),
        ("where: no", "where", "no"),
        ("channel: 0", "channel", "0"),
        ("ray_address: 10:30", "ray_address", "10:30"),
        ("input: [on, 12:30, 1e3]", "input", ["on", "12:30", "1e3"]),
        ("overwrite: yes", "overwrite", True),
        ("overwrite: Off", "overwrite", False),
        ("overwrite: false", "overwrite", False),
        ("token_budget: 4096", "token_budget", 4096),
        ("window_s: 1e2", "window_s", 100.0),
        ("max_error_rate: .5", "max_error_rate", 0.5),
        ("max_duration_s: .inf", "max_duration_s", None),
        ("limit: ~", "limit", None),
        ("limit: null", "limit", None),
        ("limit:", "limit", None),
    ],
)
def test_what_a_file_says_is_what_is_meant(tmp_path: Path, line: str, name: str, value: Any) -> None:
    least = {"input": "in", "output": "out", "model": "m"}
    file = tmp_path / "job.yaml"
    file.write_text("".join(f"{field}: {given}\n" for field, given in least.items() if field != name) + line)
    spec = told("--config", str(file))
    held = {**vars(spec.corpus), **vars(spec.compute), **vars(spec.table), "model": spec.models["transcribe"]}
    assert held[name] == value


def test_places_without_a_flag_add_to_those_with_one(tmp_path: Path) -> None:
    spec = told("a.wav", "--output", "o", "b.wav", "--input", "c.wav", "--model", "m", "--", "-d.wav")
    assert spec.corpus.input == ["c.wav", "a.wav", "b.wav", "-d.wav"]
    file = tmp_path / "job.yaml"
    file.write_text("input: of file\n")
    assert told("--config", str(file), "x", *LEAST[2:]).corpus.input == ["x"]
    trained = read_spec(
        FinetuneSpec,
        ["a", "b", "--task", "transcribe", "--output", "o", "--model", "m"],
        program="x",
        environment={},
    )
    assert trained.data.train == ["a", "b"]


@pytest.fixture
def printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `--print-config` shows of settings from everywhere."""
    file = tmp_path / "job.yaml"
    file.write_text(
        "output: 12:30\nnum_actors: 1:4\nsince: 36h\nstorage:\n  region: mars\n  secret: hidden\n"
    )
    environment = {"W2VBERT_DTYPE": "float16", "W2VBERT_STORAGE_TOKEN": "hidden"}
    with pytest.raises(SystemExit) as caught:
        told(
            *("in it", "--config", str(file), "--model", "null", "--where", "a = 'x: # y'"),
            "--print-config",
            environment=environment,
        )
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_the_merged_settings_say_where_each_is_from(printed: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    lines = printed.splitlines()
    for line in (
        "input: [in it]  # --input",
        f"output: '12:30'  # {file}, line 1",
        f"num_actors: '1:4'  # {file}, line 2",
        f"  region: mars  # {file}, line 5",
        f"  # secret: not shown  # {file}, line 6",
        "  # token: not shown  # W2VBERT_STORAGE_TOKEN",
        "dtype: float16  # W2VBERT_DTYPE",
        "window_s: 40.0  # default",
        "json: false  # default",
    ):
        assert line in lines
    assert "hidden" not in printed


def test_the_merged_settings_are_a_file_that_says_the_same(printed: str, tmp_path: Path) -> None:
    file = tmp_path / "again.yaml"
    file.write_text(printed)
    spec = told("--config", str(file))
    assert (spec.table.output, spec.compute.num_actors, spec.models["transcribe"]) == ("12:30", "1:4", "null")
    assert (spec.corpus.input, spec.corpus.where) == (["in it"], "a = 'x: # y'")
    assert (spec.corpus.storage.region, spec.compute.dtype) == ("mars", "float16")
    assert spec.corpus.since is not None


@pytest.mark.parametrize("name", list(declarations()))
def test_the_schema_takes_what_the_job_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(declarations()[name], ["--json-schema"], program=f"w2vbert {name}", environment={})
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    tops = [option.path[0] for option in all_options(declarations()[name])]
    assert list(schema["properties"]) == list(dict.fromkeys(tops))
    assert all("description" in held for held in schema["properties"].values() if "properties" not in held)


def test_the_schema_finds_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(AnnotateSpec, ["--json-schema"], program="w2vbert annotate", environment={})
    schema = json.loads(capsys.readouterr().out)

    def fits(text: str) -> bool:
        return jsonschema.Draft202012Validator(schema).is_valid(yaml.safe_load(text))

    assert fits("input: in\nnum_actors: 4\ndtype: bfloat16\noverwrite: true\nstorage: {region: mars}\n")
    assert fits("input: [a, b]\nsince: 36h\nlimit: null\nwindow_s: 20\nlog_level: debug\n")
    for wrong in ("ouptut: o", "dtype: float23", "limit: 0", "storage: {regoin: mars}", "overwrite: 7"):
        assert not fits(wrong), wrong


def test_how_to_speak_is_told_as_all_else() -> None:
    environment = {**ENVIRONMENT, "W2VBERT_LOG_LEVEL": "debug", "W2VBERT_JSON": "true"}
    found = read(TranscribeSpec, ["--quiet"], program="x", environment=environment).console
    assert found == Console(quiet=True, log_level="debug", json=True)
