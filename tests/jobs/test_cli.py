"""Flags, YAML and environment of a job's spec."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.cli import read_spec
from pipeline.errors import JobError
from pipeline.spec import AnnotateSpec, TranscribeSpec
from pipeline.storage import StorageOptions

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
    assert (spec.output, spec.dtype, spec.channel) == ("f", "bfloat16", "left")
    assert (spec.storage.region, spec.storage.endpoint_url) == ("yaml", "http://env")
    assert read(*LEAST, "--storage-region", "flag", environment=environment).storage.region == "flag"


def test_booleans_can_be_taken_back(yaml: Path) -> None:
    yaml.write_text("overwrite: true\n")
    assert read("--config", str(yaml), *LEAST).overwrite is True
    assert read("--config", str(yaml), "--no-overwrite", *LEAST).overwrite is False
    assert read(*LEAST, environment={"W2VBERT_OVERWRITE": "true"}).overwrite is True


def test_lists_stay_whole(yaml: Path) -> None:
    odd = "s3://b/a,b[0-9]{1,2}.tar"
    assert read(*LEAST, "--input", odd).input == ["in", odd]
    yaml.write_text(f"input: '{odd}'\noutput: o\nmodel: m\n")
    assert read("--config", str(yaml)).input == [odd]
    yaml.write_text(f"input: ['{odd}', other]\noutput: o\nmodel: m\n")
    assert read("--config", str(yaml)).input == [odd, "other"]
    assert read("--output=o", "--model=m", environment={"W2VBERT_INPUT": f"{odd} b"}).input == [odd, "b"]


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
    assert "unknown argument --token-bugdet=5; did you mean '--token-budget'?" in capsys.readouterr().err


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
    assert read(*LEAST, "--since", text).since == time
    yaml.write_text(f"since: {text}\n")  # YAML reads most of these as times by itself
    assert read("--config", str(yaml), *LEAST).since == time


def test_an_age_counts_back_from_now() -> None:
    before = datetime.now(UTC)
    since = read(*LEAST, "--since", "36h").since
    assert since is not None
    assert timedelta(0) <= since + timedelta(hours=36) - before <= datetime.now(UTC) - before


def test_help_begins_with_what_must_be_given_and_what_the_job_has_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for declaration, flags in (
        (TranscribeSpec, ["--input", "--output", "--model", "--dtype"]),
        (
            AnnotateSpec,
            ["--input", "--output", "--transcribe", "--classify", "--diarize", "--embed", "--dtype"],
        ),
    ):
        with pytest.raises(SystemExit):
            read_spec(declaration, ["--help"], program="jobs/x.py", environment={})
        options = capsys.readouterr().out.split("--config FILE         ")[1]
        assert re.findall(r"^  (--[\w-]+)", options, re.MULTILINE)[: len(flags)] == flags


def test_help_lists_every_field_with_type_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read("--help")
    assert caught.value.code == 0
    # argparse breaks lines where it likes.
    text = "".join(capsys.readouterr().out.split())
    fields = {name: field for name, field in TranscribeSpec.model_fields.items() if name != "storage"}
    fields |= {f"storage_{name}": StorageOptions.model_fields[name] for name in ("endpoint_url", "region")}
    fields["storage_anonymous"] = StorageOptions.model_fields["anonymous"]
    for name, field in fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description is not None
        assert "".join(field.description.split()) in text
    # Type and default, one of each kind.
    for said in (
        "(str,repeatable;required)",
        "(text;required)",
        "(choice;default:float32)",
        "(float;default:40.0)",
        "(time;default:unset)",
        "(int;default:unset)",
        "(flag;default:false)",
        "(text;default:auto)",
    ):
        assert said in text
    assert "{float32,bfloat16,float16}" in text


def test_no_flag_takes_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(*LEAST, "--storage-secret", "hidden")
    assert "unknown argument --storage-secret" in capsys.readouterr().err


def test_secrets_are_read_and_never_public() -> None:
    environment = {f"W2VBERT_STORAGE_{name}": f"hidden-{name}" for name in ("KEY", "SECRET", "TOKEN")}
    spec = read(*LEAST, "--storage-region", "mars", environment=environment)
    assert spec.storage.secret is not None
    assert spec.storage.secret.get_secret_value() == "hidden-SECRET"
    public = spec.public()
    assert public["storage"] == {"endpoint_url": None, "region": "mars", "anonymous": False}
    assert "hidden" not in json.dumps(public) + repr(spec)


def test_settings_of_the_output_leave_out_place_and_speed() -> None:
    assert read(*LEAST, "--token-budget", "9").output_settings() == {
        "dtype": "float32",
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
