"""Flags, YAML and environment of a job's spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.cli import read_spec
from pipeline.errors import JobError
from pipeline.spec import JobSpec
from pipeline.storage import StorageOptions

LEAST = ["--input", "in", "--output", "out", "--model", "m"]


def read(*arguments: str, environment: Mapping[str, str] | None = None) -> JobSpec:
    return read_spec(JobSpec, arguments, program="jobs/transcribe.py", environment=environment or {})


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
    ],
)
def test_a_wrong_value_names_its_field(arguments: list[str], said: str) -> None:
    with pytest.raises(JobError) as caught:
        read(*arguments)
    assert said in str(caught.value)


def test_help_lists_every_field_with_type_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read("--help")
    assert caught.value.code == 0
    # argparse breaks lines where it likes.
    text = "".join(capsys.readouterr().out.split())
    fields = {name: field for name, field in JobSpec.model_fields.items() if name != "storage"}
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
        "(float;default:1800.0)",
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
        "max_duration_s": 1800.0,
    }
