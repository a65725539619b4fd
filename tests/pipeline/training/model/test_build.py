"""What a run starts from, and what of it is new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import JobError
from pipeline.training.model.build import build
from tests.pipeline.training.model.tiny import CONFIG, HEADS, WIDTH, tiny
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.packing import Packed


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four checkpoints around one encoder, and the bare encoder."""
    folder = tmp_path_factory.mktemp("saved")
    learner = tiny(seed=5)
    for task in HEADS:
        learner.results[task].save_pretrained(folder / task)
    learner.encoder.save_pretrained(folder / "bare")
    return folder


def names(task: str, *parameters: str) -> set[str]:
    return {f"tasks.{task}.{name}" for name in parameters}


LM_HEAD = names("transcribe", "lm_head.weight", "lm_head.bias")
CLASSIFIER = names("classify", "classifier.weight", "classifier.bias")
PROJECTOR = names("classify", "projector.weight", "projector.bias")


@pytest.mark.parametrize("task", HEADS)
def test_a_checkpoint_goes_on(saved: Path, task: str) -> None:
    built = build(saved / task, {task: HEADS[task]}, {})
    # Whose voices the classes of an x-vector model are, its checkpoint does not say.
    assert built.new == (names("embed", "objective.weight") if task == "embed" else frozenset())
    assert built.learner.training
    expected = dict(tiny(seed=5).named_parameters())
    for name, tensor in built.learner.named_parameters():
        assert torch.equal(tensor, expected[name]) == (name not in built.new), name


@pytest.mark.parametrize(
    ("start", "heads", "options", "new"),
    [
        ("bare", ("transcribe", "classify"), {}, LM_HEAD | PROJECTOR | CLASSIFIER),
        ("transcribe", ("transcribe", "classify"), {}, PROJECTOR | CLASSIFIER),
        ("transcribe", ("transcribe",), {"new_heads": True}, LM_HEAD),
        # Another head's classifier may have the right size, and is another all the same.
        ("diarize", ("classify",), {}, PROJECTOR | CLASSIFIER),
    ],
)
def test_heads_that_are_new(
    saved: Path, start: str, heads: tuple[str, ...], options: dict[str, Any], new: set[str]
) -> None:
    built = build(saved / start, {task: HEADS[task] for task in heads}, {}, **options)
    assert built.new == new
    weights, expected = dict(built.learner.named_parameters()), dict(tiny(seed=5).named_parameters())
    for name in weights:
        same = torch.equal(weights[name], expected[name])
        assert same == (name not in new or name.endswith("bias")), name
        assert weights[name].isfinite().all(), name


def test_classes_of_other_names_are_other_classes(saved: Path) -> None:
    """As many of them as there were would fit, and mean what others meant."""
    kept = {"id2label": HEADS["classify"]["id2label"]}
    assert build(saved / "classify", {"classify": kept}, {}).new == frozenset()
    other = {"id2label": {number: f"other {name}" for number, name in kept["id2label"].items()}}
    assert build(saved / "classify", {"classify": other}, {}).new == CLASSIFIER


def test_heads_of_another_size(saved: Path) -> None:
    """What still fits is kept: the time-delay network of an x-vector model knows voices, not its speakers."""
    assert build(saved / "transcribe", {"transcribe": {"vocab_size": 9}}, {}).new == LM_HEAD
    assert build(saved / "classify", {"classify": {"num_labels": 5}}, {}).new == CLASSIFIER
    assert build(saved / "embed", {"embed": {"num_labels": 9}}, {}).new == names("embed", "objective.weight")


def test_labels_are_those_given(saved: Path) -> None:
    for given, expected in (
        ({"id2label": {0: "yes", 1: "no"}}, ({0: "yes", 1: "no"}, {"yes": 0, "no": 1})),
        ({"num_labels": 2}, ({0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1})),
        ({}, (HEADS["classify"]["id2label"], {"dog": 0, "cat": 1, "owl": 2})),
    ):
        config = build(saved / "classify", {"classify": given}, {}).learner.results["classify"].config
        assert (config.id2label, config.label2id) == expected
        assert config.problem_type == "single_label_classification"


def test_parts_that_the_encoder_did_without(saved: Path) -> None:
    built = build(saved / "transcribe", {"transcribe": HEADS["transcribe"]}, {"add_adapter": True})
    assert built.new
    assert all(name.startswith("encoder.adapter.") for name in built.new)


def test_from_a_configuration_all_is_new_and_none_newer(tmp_path: Path) -> None:
    file = tmp_path / "small.json"
    file.write_text(json.dumps(CONFIG))
    torch.manual_seed(5)
    built = build(file, {"transcribe": HEADS["transcribe"]}, {"num_hidden_layers": 1})
    assert built.new == frozenset()
    assert len(built.learner.encoder.encoder.layers) == 1
    torch.manual_seed(5)
    again = dict(
        build(
            CONFIG, {"transcribe": HEADS["transcribe"]}, {"num_hidden_layers": 1}
        ).learner.named_parameters()
    )
    assert all(torch.equal(again[name], tensor) for name, tensor in built.learner.named_parameters())


def test_signals_pass_a_narrow_x_vector_head() -> None:
    """With the published scheme the vector of a clip is its bias, whatever is said."""
    torch.manual_seed(0)
    narrow = {
        **CONFIG,
        "tdnn_dim": [32] * 5,
        "tdnn_kernel": [5, 3, 3, 1, 1],
        "tdnn_dilation": [1, 2, 3, 1, 1],
    }
    learner = build({**narrow, "initializer_range": 0.02}, {"embed": HEADS["embed"]}, {}).learner.eval()
    clips = Packed(torch.randn(120, WIDTH), (60, 60))
    vectors = learner.results["embed"](clips.pad()).embeddings
    assert (vectors[0] - vectors[1]).norm() > 0.05


def test_training_leaves_the_files_alone(saved: Path) -> None:
    before = (saved / "classify" / "model.safetensors").read_bytes()
    learner = build(saved / "classify", {"classify": HEADS["classify"]}, {}).learner
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(1.0)
    assert (saved / "classify" / "model.safetensors").read_bytes() == before


def test_half_precision_is_trained_in_float32(saved: Path, tmp_path: Path) -> None:
    Wav2Vec2BertModel.from_pretrained(saved / "bare", dtype="bfloat16").save_pretrained(tmp_path)
    weights = dict(build(tmp_path, {"classify": HEADS["classify"]}, {}).learner.named_parameters())
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("heads", "overrides", "message"),
    [
        (
            {"classify": {}},
            {"mask_time_probs": 0.1},
            "--set mask_time_probs: .*; did you mean mask_time_prob?",
        ),
        ({"classify": {}}, {"zzz": 1}, "--set zzz: the model's configuration has no such field$"),
        ({"classify": {}}, {"mask_time_prob": 3}, "mask_time_prob: must be a number from 0 to 1, is 3"),
        ({"classify": {}}, {"add_adapter": True}, "add_adapter: sequence classification does not take"),
        (
            {"classify": {"hidden_size": 8}},
            {},
            "classify: the tasks of a run share one encoder.* hidden_size",
        ),
        ({"transcribe": {}}, {}, "vocab_size: is not set"),
        ({"classify": {}}, {"num_hidden_layers": 5}, r"bare: has no weights for encoder\.layers\.3"),
        ({"classify": {}}, {"hidden_size": 32}, "does not fit the configuration"),
    ],
)
def test_what_cannot_be_built(
    saved: Path, heads: dict[str, Any], overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobError, match=message):
        build(saved / "bare", heads, overrides)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no config\.json"):
        build(tmp_path, {"classify": {}}, {})
