"""Checkpoints as bytes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from pipeline.errors import JobError
from pipeline.models import read_checkpoint
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())
DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def test_directory_holds_the_same_bytes(model: Path) -> None:
    read = read_checkpoint(str(model), STORAGE)
    made = read.directory()
    assert made != model
    assert {file.name: file.read_bytes() for file in made.iterdir()} == {
        file.name: file.read_bytes() for file in model.iterdir()
    }
    assert read.directory() == made
    assert [entry.name for entry in made.parent.iterdir()] == [made.name]


def test_digest_follows_the_bytes_not_the_place(model: Path) -> None:
    first = read_checkpoint(str(model), STORAGE).digest
    assert first == read_checkpoint(str(DEMO), STORAGE).digest
    vocabulary = model / "vocab.json"
    vocabulary.write_bytes(vocabulary.read_bytes() + b"\n")
    assert read_checkpoint(str(model), STORAGE).digest != first


def test_pickled_weights_are_left_where_safe_ones_are(model: Path) -> None:
    first = read_checkpoint(str(model), STORAGE)
    (model / "pytorch_model.bin").write_bytes(b"weights")
    (model / "README.md").write_text("no part of it")
    assert read_checkpoint(str(model), STORAGE).digest == first.digest


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("config.json", "no config.json there"),
        ("model.safetensors", "no weights there"),
        ("vocab.json", "no vocab.json there"),
    ],
)
def test_an_incomplete_directory_is_refused(model: Path, absent: str, said: str) -> None:
    (model / absent).unlink()
    with pytest.raises(JobError, match=said) as caught:
        read_checkpoint(str(model), STORAGE)
    assert f"--model {model}" in str(caught.value)


@pytest.mark.parametrize("given", ["/no/such/place", "./nothing/here", "nothing"])
def test_a_missing_directory_is_named(given: str) -> None:
    with pytest.raises(JobError, match="no such directory") as caught:
        read_checkpoint(given, STORAGE)
    assert given in str(caught.value)


def test_a_hub_id_without_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(JobError, match="nobody/nothing: neither a directory here nor to be had"):
        read_checkpoint("nobody/nothing", STORAGE)


@pytest.mark.parametrize("file", ["config.json", "vocab.json", "model.safetensors"])
def test_a_damaged_file_is_refused(model: Path, file: str) -> None:
    (model / file).write_bytes((model / file).read_bytes()[:100])
    with pytest.raises(JobError, match="cannot be read") as caught:
        read_checkpoint(str(model), STORAGE)
    assert f"--model {model}: cannot be read" in str(caught.value)
    assert file in str(caught.value)
