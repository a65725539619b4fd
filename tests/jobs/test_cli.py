"""Flags, YAML and environment of a job's spec."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pydantic
import pytest
from pydantic import ValidationError

import pipeline
from jobs.cli import command, read_spec
from pipeline import package_version
from pipeline.errors import JobError
from pipeline.spec import AnnotateSpec, TranscribeSpec
from pipeline.storage import StorageOptions
from tests.conftest import ROOT

LEAST = ["--input", "in", "--output", "out", "--model", "m"]


def read(*arguments: str, environment: Mapping[str, str] | None = None) -> TranscribeSpec:
    return read_spec(TranscribeSpec, arguments, program="jobs/transcribe.py", environment=environment or {})


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


def test_flags_over_yaml_over_environment(yaml: Path) -> None:
    environment = {
        "W2VBERT_OUTPUT": "from environment",
        "W2VBERT_DTYPE": "float16",
        "W2VBERT_CHANNEL": "left",
        "W2VBERT_STORAGE_REGION": "env",
        "W2VBERT_STORAGE_ENDPOINT_URL": "http://env",
    }
    yaml.write_text("output: from yaml\ndtype: bfloat16\nstorage:\n  region: yaml\n")
    spec = read(
        "--config", str(yaml), "--input", "in", "--model", "m", "--output", "f", environment=environment
    )
    assert (spec.table.output, spec.compute.dtype, spec.corpus.channel) == ("f", "bfloat16", "left")
    assert (spec.corpus.storage.region, spec.corpus.storage.endpoint_url) == ("yaml", "http://env")
    assert read(*LEAST, "--storage-region", "flag", environment=environment).corpus.storage.region == "flag"


def test_booleans_can_be_taken_back(yaml: Path) -> None:
    yaml.write_text("overwrite: true\n")
    assert read("--config", str(yaml), *LEAST).table.overwrite is True
    assert read("--config", str(yaml), "--no-overwrite", *LEAST).table.overwrite is False
    assert read(*LEAST, environment={"W2VBERT_OVERWRITE": "true"}).table.overwrite is True


def test_lists_stay_whole(yaml: Path) -> None:
    odd = "s3://b/a,b[0-9]{1,2}.tar"
    assert read(*LEAST, "--input", odd).corpus.input == ["in", odd]
    yaml.write_text(f"input: '{odd}'\noutput: o\nmodel: m\n")
    assert read("--config", str(yaml)).corpus.input == [odd]
    yaml.write_text(f"input: ['{odd}', other]\noutput: o\nmodel: m\n")
    assert read("--config", str(yaml)).corpus.input == [odd, "other"]
    assert read("--output=o", "--model=m", environment={"W2VBERT_INPUT": f"{odd} b"}).corpus.input == [
        odd,
        "b",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ouptut: x\n", "unknown field 'ouptut'; did you mean 'output'?"),
        ("storage:\n  regoin: x\n", "unknown field 'storage.regoin'; did you mean 'region'?"),
        ("zzzzzz: 1\n", "unknown field 'zzzzzz'"),
        ("- input\n", "must hold 'field: value' lines, not list"),
        ("a: [\n", "is not YAML"),
        ("", "must hold 'field: value' lines"),
    ],
)
def test_a_wrong_file_is_explained(yaml: Path, text: str, said: str) -> None:
    yaml.write_text(text)
    with pytest.raises(JobError) as caught:
        read("--config", str(yaml), *LEAST)
    assert said in str(caught.value)
    assert str(yaml) in str(caught.value)


def test_an_absent_file_is_explained(yaml: Path) -> None:
    with pytest.raises(JobError, match=r"job\.yaml: No such file"):
        read("--config", str(yaml))


def test_an_unknown_flag_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read(*LEAST, "--token-bugdet=5")
    assert caught.value.code == 2
    assert "unknown argument --token-bugdet; did you mean '--token-budget'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (LEAST[2:], "input is missing: give --input"),
        ([*LEAST, "--token-budget", "0"], "token_budget: Input should be greater than or equal to 1"),
        ([*LEAST, "--token-budget", "many"], "token_budget: Input should be a valid integer"),
        ([*LEAST, "--num-actors", "3:2"], "num_actors: must be 'auto', a positive number, or MIN:MAX"),
        ([*LEAST, "--channel", "middle"], "channel: must be 'mean', 'left', 'right'"),
        ([*LEAST, "--max-error-rate", "1.5"], "max_error_rate: Input should be less than or equal to 1"),
        ([*LEAST, "--since", "yesterday"], "since: must be a time such as 2026-11-24T06:00, or an age"),
        ([*LEAST, "--overlap-s", "31"], "overlap_s: 31 is more than half of window_s (40)"),
    ],
)
def test_a_wrong_value_names_its_field(arguments: list[str], said: str) -> None:
    with pytest.raises(JobError) as caught:
        read(*arguments)
    assert str(caught.value).startswith(said)


def test_a_rule_on_several_fields_is_said_as_it_is() -> None:
    with pytest.raises(JobError) as caught:
        read_spec(AnnotateSpec, LEAST[:4], program="jobs/annotate.py", environment={})
    assert str(caught.value).startswith("nothing to annotate: give any of --transcribe, --classify, ")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-24T06:00", datetime(2026, 11, 24, 6, tzinfo=UTC)),
        ("2026-11-24T06:00+02:00", datetime(2026, 11, 24, 4, tzinfo=UTC)),
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
    ],
)
def test_times_from_flag_and_file(yaml: Path, text: str, time: datetime) -> None:
    assert read(*LEAST, "--since", text).corpus.since == time
    yaml.write_text(f"since: {text}\n")  # YAML reads most of these as times by itself
    assert read("--config", str(yaml), *LEAST).corpus.since == time


def test_an_age_counts_back_from_now() -> None:
    before = datetime.now(UTC)
    since = read(*LEAST, "--since", "36h").corpus.since
    assert since is not None
    assert timedelta(0) <= since + timedelta(hours=36) - before <= datetime.now(UTC) - before


@pytest.mark.parametrize(
    ("job", "groups", "models"),
    [
        ("transcribe", ["decoding"], ["model"]),
        ("classify", ["classification"], ["model"]),
        ("diarize", ["diarization"], ["model"]),
        ("embed", [], ["model"]),
        (
            "annotate",
            ["decoding", "diarization", "classification"],
            ["transcribe", "classify", "diarize", "embed"],
        ),
    ],
)
def test_help_comes_in_groups(
    capsys: pytest.CaptureFixture[str], job: str, groups: list[str], models: list[str]
) -> None:
    """What the job has of its own before what all have; in each group first what must be given."""
    with pytest.raises(SystemExit):
        command(job)(["--help"])
    text = capsys.readouterr().out
    found = re.findall(r"^(\w+):\n((?:  .*\n|\n)+)", text, re.MULTILINE)
    assert [title for title, _ in found] == [
        *("options", "input", "output", "model"),
        *groups,
        *("running", "cluster", "storage", "messages"),
    ]
    flags = {title: re.findall(r"^  --([\w-]+)", body, re.MULTILINE) for title, body in found}
    assert flags["input"][0] == "input"
    assert flags["output"][0] == "output"
    assert flags["model"] == [*models, "dtype", "window-s", "overlap-s", "token-budget"]
    assert flags["running"] == ["lane", "retry-errors", "plan", "max-error-rate"]
    assert flags["messages"] == ["quiet", "log-level", "log-format", "json"]
    assert flags["storage"] == ["storage-endpoint-url", "storage-region", "storage-anonymous"]


def test_help_lists_every_field_with_type_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read("--help")
    assert caught.value.code == 0
    # argparse breaks lines where it likes.
    text = "".join(capsys.readouterr().out.split())
    parts = TranscribeSpec.parts()
    fields = {name: field for name, field in TranscribeSpec.model_fields.items() if name not in parts}
    fields |= {name: field for part in parts.values() for name, field in part.model_fields.items()}
    del fields["storage"]
    fields |= {f"storage_{name}": StorageOptions.model_fields[name] for name in ("endpoint_url", "region")}
    fields["storage_anonymous"] = StorageOptions.model_fields["anonymous"]
    for name, field in fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description is not None
        assert "".join(field.description.split()) in text
    # Type and default, one of each kind.
    for said in (
        "(text,repeatable;required)",
        "(text;required)",
        "(choice;default:auto)",
        "(float;default:40.0)",
        "(time;default:unset)",
        "(int;default:unset)",
        "(flag;default:false)",
        "(text;default:auto)",
    ):
        assert said in text
    assert "{auto,float32,bfloat16,float16}" in text


def test_no_flag_takes_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(*LEAST, "--storage-secret", "hidden")
    assert "unknown argument --storage-secret" in capsys.readouterr().err


def test_secrets_are_read_and_never_public() -> None:
    environment = {f"W2VBERT_STORAGE_{name}": f"hidden-{name}" for name in ("KEY", "SECRET", "TOKEN")}
    spec = read(*LEAST, "--storage-region", "mars", environment=environment)
    assert spec.corpus.storage.secret is not None
    assert spec.corpus.storage.secret.get_secret_value() == "hidden-SECRET"
    public = spec.public()
    assert public["storage"] == {"endpoint_url": None, "region": "mars", "anonymous": False}
    assert "hidden" not in json.dumps(public) + repr(spec)


def test_settings_of_the_output_leave_out_place_and_speed() -> None:
    assert read(*LEAST, "--token-budget", "9").output_settings() == {
        "dtype": "auto",
        "channel": "mean",
        "window_s": 40.0,
        "overlap_s": 4.0,
        "vad": None,
        "max_duration_s": None,
        "lm_weight": 2.0,
        "word_score": 0.0,
        "beam_size": None,
        "nbest": 1,
        "align": False,
    }


def test_a_spec_is_flat_and_has_parts() -> None:
    spec = TranscribeSpec(input="in", output="out", model="m", nbest=3, where="true", dtype="float16")
    assert (spec.corpus.input, spec.corpus.where) == (["in"], "true")
    assert (spec.table.output, spec.compute.dtype) == ("out", "float16")
    assert spec.options("transcribe").nbest == 3
    assert spec.models == {"transcribe": "m"}
    assert spec.model_flags == {"transcribe": "--model"}
    assert TranscribeSpec(**spec.public()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_a_spec_of_any_tasks_has_those_that_are_asked_for() -> None:
    spec = AnnotateSpec(input=["in"], output="out", embed="e", classify="c")
    assert list(spec.models.items()) == [("classify", "c"), ("embed", "e")]
    assert list(spec.tasks) == ["classify", "embed"]
    assert spec.model_flags["embed"] == "--embed"
    assert spec.options("classify").top_k == 5


@pytest.mark.parametrize("given", [{"nonsense": 1}, {"corpus": {"output": "o"}}, {"top_k": 3}])
def test_a_spec_refuses_what_it_does_not_know(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        TranscribeSpec(input=["in"], output="out", model="m", **given)


def test_help_and_mistakes_do_not_wait_for_torch() -> None:
    script = (
        "import sys\nfrom jobs.cli import command\n"
        "try: command('annotate')(['--help'])\n"
        "except SystemExit: print({'torch', 'ray', 'w2vbert', 'scipy', 'jiwer'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "set()"


def test_versions_are_known_where_the_project_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    assert package_version("pydantic") == pydantic.VERSION
    monkeypatch.setattr(pipeline, "version", version)
    assert re.fullmatch(r"\d+\.\d+\.\d+", package_version("w2vbert"))
    assert package_version("pydantic") == "unknown"
