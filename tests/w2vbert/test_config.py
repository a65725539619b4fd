"""The configuration: what it checks, keeps and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from w2vbert.config import ConfigError, Wav2Vec2BertConfig
from w2vbert.pretrained.hub import CheckpointNotFoundError


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("hidden_size", {"hidden_size": 0}),
        ("hidden_size", {"hidden_size": 100, "num_attention_heads": 16}),
        ("hidden_size", {"hidden_size": 64.0}),
        ("output_hidden_size", {"add_adapter": True, "output_hidden_size": 1000}),
        ("num_attention_heads", {"num_attention_heads": True}),
        ("vocab_size", {"vocab_size": 0}),
        ("hidden_act", {"hidden_act": "softmax"}),
        ("adapter_act", {"adapter_act": None}),
        ("layerdrop", {"layerdrop": 1.5}),
        ("hidden_dropout", {"hidden_dropout": -0.1}),
        ("mask_time_prob", {"mask_time_prob": float("nan")}),
        ("mask_time_length", {"mask_time_length": 0}),
        ("layer_norm_eps", {"layer_norm_eps": -1e-5}),
        ("position_embeddings_type", {"position_embeddings_type": "absolute"}),
        ("position_embeddings_type", {"position_embeddings_type": "rotary", "hidden_size": 48}),
        (
            "position_embeddings_type",
            {"position_embeddings_type": "relative", "hidden_size": 15, "num_attention_heads": 3},
        ),
        ("left_max_position_embeddings", {"left_max_position_embeddings": -1}),
        ("conv_depthwise_kernel_size", {"conv_depthwise_kernel_size": 30}),
        ("use_intermediate_ffn_before_adapter", {"use_intermediate_ffn_before_adapter": True}),
        ("tdnn_dim", {"tdnn_dim": [512, 512]}),
        ("tdnn_kernel[1]", {"tdnn_kernel": [5, 0, 3, 1, 1]}),
        ("tdnn_dilation", {"tdnn_dilation": 1}),
        ("ctc_loss_reduction", {"ctc_loss_reduction": "max"}),
        ("problem_type", {"problem_type": "clustering"}),
        ("problem_type", {"problem_type": "single_label_classification", "num_labels": 1}),
        ("num_labels", {"num_labels": 0}),
        ("num_labels", {"num_labels": 3, "id2label": {0: "a", 1: "b"}}),
        ("id2label", {"id2label": {1: "a", 2: "b"}}),
    ],
)
def test_impossible_values_name_their_field(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r".+: .+") as error:
        Wav2Vec2BertConfig(**values)
    assert error.value.field == field


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    config = Wav2Vec2BertConfig(
        hidden_size=64, num_attention_heads=4, num_labels=3, tdnn_dim=(8, 8, 8, 8, 9), invented={"by": ["us"]}
    )
    config.save_pretrained(tmp_path)
    again = Wav2Vec2BertConfig.from_pretrained(tmp_path)
    assert again == config
    assert again.invented == {"by": ["us"]}
    assert again.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert again.output_hidden_size == 64
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["model_type"] == "wav2vec2-bert"
    assert list(stored) == sorted(stored)


def test_overrides_win_and_must_exist(tmp_path: Path) -> None:
    Wav2Vec2BertConfig(num_labels=2).save_pretrained(tmp_path)
    config = Wav2Vec2BertConfig.from_pretrained(tmp_path, num_labels=4, layerdrop=0.0)
    assert (config.num_labels, config.layerdrop) == (4, 0.0)
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2, "LABEL_3": 3}
    with pytest.raises(ConfigError, match="layer_drop"):
        Wav2Vec2BertConfig.from_pretrained(tmp_path, layer_drop=0.0)
    with pytest.raises(ConfigError, match="hidden_act"):
        Wav2Vec2BertConfig.from_pretrained(tmp_path, hidden_act="none")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"config\.json"):
        Wav2Vec2BertConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=str(tmp_path)):
        Wav2Vec2BertConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(ConfigError, match="whisper"):
        Wav2Vec2BertConfig.from_pretrained(tmp_path)


def test_labels_given_by_name() -> None:
    config = Wav2Vec2BertConfig(id2label={"0": "no", "1": "yes", "2": "maybe"})
    assert config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    assert config.label2id == {"no": 0, "yes": 1, "maybe": 2}
    config.num_labels = 3
    assert config.id2label[2] == "maybe", "setting the number they have keeps the names"


@pytest.mark.parametrize("given", [{"dtype": torch.bfloat16}, {"torch_dtype": "bfloat16"}])
def test_dtype_is_kept_as_text(given: dict[str, Any]) -> None:
    assert Wav2Vec2BertConfig(**given).to_dict()["dtype"] == "bfloat16"


def test_sizes_that_follow() -> None:
    config = Wav2Vec2BertConfig(output_hidden_size=512)
    assert (config.head_size, config.encoded_size, config.inputs_to_logits_ratio) == (64, 1024, 320)
    config = Wav2Vec2BertConfig(output_hidden_size=512, add_adapter=True, num_adapter_layers=3)
    assert (config.encoded_size, config.inputs_to_logits_ratio) == (512, 2560)
    assert (Wav2Vec2BertConfig().total_stride, config.total_stride) == (1, 8)
    assert Wav2Vec2BertConfig(add_adapter=True, num_adapter_layers=2, adapter_stride=3).total_stride == 9
