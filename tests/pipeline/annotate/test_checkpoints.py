"""Checkpoints as bytes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
import torch

from pipeline.annotate.checkpoints import Backbone, read_backbones
from pipeline.annotate.heads import load_models
from pipeline.errors import JobError
from pipeline.node_files import CheckpointFiles
from pipeline.storage import Storage, StorageOptions
from pipeline.tasks import TASKS
from tests.jobs.peers import build, save
from w2vbert.config import Wav2Vec2BertConfig

STORAGE = Storage(StorageOptions())
DEMO = Path(__file__).resolve().parents[3] / "demo" / "checkpoint"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def transcriber(model: Path | str) -> list[Backbone]:
    return read_backbones({"transcribe": str(model)}, {"transcribe": "--model"}, TASKS, STORAGE)


def annotator(**models: Path) -> list[Backbone]:
    places = {task: str(model) for task, model in models.items()}
    return read_backbones(places, {task: f"--{task}" for task in models}, TASKS, STORAGE)


def read(model: Path) -> CheckpointFiles:
    return transcriber(model)[0].checkpoints["transcribe"]


def test_directory_holds_the_same_bytes(model: Path) -> None:
    files = read(model)
    made = files.directory()
    assert made != model
    assert {file.name: file.read_bytes() for file in made.iterdir()} == {
        file.name: file.read_bytes() for file in model.iterdir() if file.name != "README.md"
    }
    assert files.directory() == made
    assert {entry.name for entry in made.parent.iterdir()} == {made.name, files.settings().name}


def test_the_driver_copies_no_weights_of_a_local_checkpoint(model: Path) -> None:
    (backbone,) = transcriber(model)
    checkpoint = backbone.checkpoints["transcribe"]
    assert checkpoint.config.to_dict() == Wav2Vec2BertConfig.from_pretrained(model).to_dict()
    copied = [file.name for file in Path(tempfile.gettempdir()).rglob("*") if file.is_file()]
    assert sorted(copied) == sorted(file.name for file in model.glob("*.json"))


def test_digest_follows_the_bytes_not_the_place(model: Path) -> None:
    first = read(model).digest
    assert first == read(DEMO).digest
    vocabulary = model / "vocab.json"
    vocabulary.write_bytes(vocabulary.read_bytes() + b"\n")
    assert read(model).digest != first


def test_pickled_weights_are_left_where_safe_ones_are(model: Path) -> None:
    first = read(model)
    (model / "pytorch_model.bin").write_bytes(b"weights")
    (model / "README.md").write_text("no part of it")
    assert read(model).digest == first.digest


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
        transcriber(model)
    assert f"--model {model}" in str(caught.value)


@pytest.mark.parametrize("given", ["/no/such/place", "./nothing/here", "nothing"])
def test_a_missing_directory_is_named(given: str) -> None:
    with pytest.raises(JobError, match="no such directory") as caught:
        transcriber(given)
    assert given in str(caught.value)


def test_a_hub_id_without_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(JobError, match="nobody/nothing: neither a directory here nor to be had"):
        transcriber("nobody/nothing")


@pytest.mark.parametrize("file", ["config.json", "vocab.json", "model.safetensors"])
def test_a_damaged_file_is_refused(model: Path, file: str) -> None:
    (model / file).write_bytes((model / file).read_bytes()[:100])
    with pytest.raises(JobError, match="cannot be read") as caught:
        transcriber(model)
    assert f"--model {model}: cannot be read" in str(caught.value)
    assert file in str(caught.value)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of one backbone, and an x-vector model of another."""
    home = tmp_path_factory.mktemp("family")
    found = {task: save(build(task), home / task) for task in ("transcribe", "classify", "embed")}
    return {**found, "other": save(build("embed", seed=1), home / "other")}


def test_checkpoints_of_one_backbone_share_it(family: dict[str, Path]) -> None:
    (backbone,) = annotator(
        transcribe=family["transcribe"], classify=family["classify"], embed=family["embed"]
    )
    assert list(backbone.checkpoints) == ["transcribe", "classify", "embed"]
    sizes = {task: len(files.files["model.safetensors"]) for task, files in backbone.checkpoints.items()}
    assert sizes["classify"] < sizes["transcribe"] / 4  # its head alone
    models = load_models(backbone.checkpoints, TASKS, torch.float32, torch.device("cpu"))
    encoders = {id(model.wav2vec2_bert) for model in models.values()}
    assert len(encoders) == 1
    whole = {task: build(task) for task in models}
    for task, model in models.items():
        expected = whole[task].state_dict()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, expected[name]), f"{task} {name}"
    assert backbone.parameters == sum(
        parameter.numel()
        for task, model in whole.items()
        for name, parameter in model.named_parameters()
        if task == "transcribe" or not name.startswith("wav2vec2_bert.")
    )


def test_another_backbone_is_another_pass(family: dict[str, Path]) -> None:
    found = annotator(transcribe=family["transcribe"], classify=family["classify"], embed=family["other"])
    assert [list(backbone.checkpoints) for backbone in found] == [
        ["transcribe", "classify"],
        ["embed"],
    ]


def test_a_checkpoint_without_the_head_is_refused(family: dict[str, Path]) -> None:
    with pytest.raises(JobError) as caught:
        read_backbones({"embed": str(family["transcribe"])}, {"embed": "--model"}, TASKS, STORAGE)
    said = str(caught.value)
    assert f"--model {family['transcribe']}: has no weights for" in said
    assert "it was saved from Wav2Vec2BertForCTC; the task embed needs Wav2Vec2BertForXVector" in said


def test_more_speakers_than_the_table_has_room_for_are_refused(tmp_path: Path) -> None:
    many = save(build("diarize", num_labels=9), tmp_path / "many")
    with pytest.raises(JobError, match=r"--diarize .*: tells 9 speakers apart, the table has room for 8"):
        annotator(diarize=many)


def test_features_must_be_those_of_the_others(family: dict[str, Path], tmp_path: Path) -> None:
    wide = save(build("embed", feature_projection_input_dim=80), tmp_path / "wide")
    settings = wide / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace('"num_mel_bins": 80', '"num_mel_bins": 40'))
    with pytest.raises(JobError, match="its features are computed otherwise than those of"):
        annotator(classify=family["classify"], embed=wide)


def test_a_model_saved_alone_has_the_published_features(family: dict[str, Path], tmp_path: Path) -> None:
    alone = Path(shutil.copytree(family["classify"], tmp_path / "alone"))
    (alone / "preprocessor_config.json").unlink()
    (backbone,) = annotator(classify=alone)
    assert list(backbone.checkpoints) == ["classify"]
