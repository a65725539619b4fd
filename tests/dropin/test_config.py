"""Configurations as scripts for the published class use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import w2vbert
from tests.dropin.models import SIZES, twins
from w2vbert.config import ConfigError

LABELS = ["down", "go", "left", "no", "off"]
ID2LABEL = {str(index): label for index, label in enumerate(LABELS)}
LABEL2ID = {label: str(index) for index, label in enumerate(LABELS)}


def test_the_audio_classification_tutorial(tmp_path: Path) -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertModel)
    ours.save_pretrained(tmp_path)
    model = w2vbert.Wav2Vec2BertForSequenceClassification.from_pretrained(
        tmp_path, num_labels=len(LABELS), label2id=LABEL2ID, id2label=ID2LABEL
    )
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == LABEL2ID
    assert model.classifier.out_features == 5
    model.save_pretrained(tmp_path / "again")
    its = transformers.Wav2Vec2BertForSequenceClassification.from_pretrained(tmp_path / "again")
    assert its.config.id2label == dict(enumerate(LABELS))


def test_labels_by_name_settle_the_other_way(tmp_path: Path) -> None:
    w2vbert.Wav2Vec2BertConfig().save_pretrained(tmp_path)
    config = w2vbert.Wav2Vec2BertConfig.from_pretrained(tmp_path, id2label=ID2LABEL)
    assert config.num_labels == 5
    assert config.label2id == {label: index for index, label in enumerate(LABELS)}
    config.id2label = {"0": "a", "1": "b"}
    assert config.id2label == {0: "a", 1: "b"}
    assert config.num_labels == 2
    with pytest.raises(ConfigError, match="num_labels: 4, but id2label names 5 labels"):
        w2vbert.Wav2Vec2BertConfig.from_pretrained(tmp_path, num_labels=4, id2label=ID2LABEL)


def test_json_files(tmp_path: Path) -> None:
    config = w2vbert.Wav2Vec2BertConfig(**SIZES, id2label=ID2LABEL)
    config.to_json_file(tmp_path / "any.json")
    assert w2vbert.Wav2Vec2BertConfig.from_json_file(tmp_path / "any.json") == config
    different = config.to_diff_dict()
    assert different["hidden_size"] == 16
    assert "tdnn_dim" not in different
    assert w2vbert.Wav2Vec2BertConfig(**different) == config
    config.update({"layerdrop": 0.5, "num_labels": 3})
    assert (config.layerdrop, config.num_labels) == (0.5, 3)
    assert json.loads(config.to_json_string(use_diff=True))["layerdrop"] == 0.5


def test_the_content_of_a_file(tmp_path: Path) -> None:
    w2vbert.Wav2Vec2BertConfig(**SIZES, foo=[1]).save_pretrained(tmp_path / "below")
    contents = [
        library.Wav2Vec2BertConfig.get_config_dict(tmp_path, subfolder="below", layerdrop=0.3)
        for library in (w2vbert, transformers)
    ]
    (mine, unused), (its, _) = contents
    assert unused == {"layerdrop": 0.3}
    assert mine == {name: its[name] for name in mine}
    assert (mine["hidden_size"], mine["foo"]) == (16, [1])


def test_fields_from_a_text() -> None:
    text = "hidden_size=32,layerdrop=0.25,add_adapter=yes,hidden_act=gelu"
    mine, its = (library.Wav2Vec2BertConfig() for library in (w2vbert, transformers))
    for config in (mine, its):
        config.update_from_string(text)
        assert (config.hidden_size, config.layerdrop) == (32, 0.25)
        assert config.add_adapter is True
        assert config.hidden_act == "gelu"
        for wrong in ("hiden_size=3", "add_adapter=perhaps", "hidden_size=many"):
            with pytest.raises(ValueError):  # noqa: PT011  # each says it in its own words
                config.update_from_string(wrong)
    with pytest.raises(ConfigError, match="hidden_size: 37 does not divide"):
        mine.update_from_string("hidden_size=37")
    with pytest.raises(ConfigError, match="tdnn_dim: is no field that holds a number"):
        mine.update_from_string("tdnn_dim=3")


def test_unused_arguments_come_back(tmp_path: Path) -> None:
    w2vbert.Wav2Vec2BertConfig().save_pretrained(tmp_path)
    mine, its = (
        library.Wav2Vec2BertConfig.from_pretrained(
            tmp_path, layerdrop=0.3, foo=False, return_unused_kwargs=True
        )
        for library in (w2vbert, transformers)
    )
    assert mine[0].layerdrop == its[0].layerdrop == 0.3
    assert mine[1] == its[1] == {"foo": False}


@pytest.mark.parametrize("given", ["bfloat16", torch.bfloat16])
def test_attributes(given: Any) -> None:
    mine, its = (
        library.Wav2Vec2BertConfig(dtype=given, return_dict=False) for library in (w2vbert, transformers)
    )
    for name in (
        "dtype",
        "torch_dtype",
        "use_return_dict",
        "is_encoder_decoder",
        "sub_configs",
        "name_or_path",
    ):
        assert getattr(mine, name) == getattr(its, name), name
    assert mine.get_text_config() is mine
    mine.torch_dtype = "float16"
    assert mine.dtype == torch.float16
    assert mine.to_dict()["dtype"] == "float16"


def test_folders_below(tmp_path: Path) -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    ours.save_pretrained(tmp_path / "below" / "it")
    config = w2vbert.Wav2Vec2BertConfig.from_pretrained(tmp_path, subfolder="below/it")
    assert config.hidden_size == 16
    again = w2vbert.Wav2Vec2BertForCTC.from_pretrained(tmp_path, subfolder="below/it")
    assert torch.equal(again.lm_head.weight, ours.lm_head.weight)


@pytest.mark.parametrize(
    "name",
    [
        "Wav2Vec2BertModel",
        "Wav2Vec2BertForCTC",
        "Wav2Vec2BertForSequenceClassification",
        "Wav2Vec2BertForAudioFrameClassification",
        "Wav2Vec2BertForXVector",
    ],
)
@torch.no_grad()
def test_a_configuration_of_the_peer(name: str) -> None:
    config = transformers.Wav2Vec2BertConfig(**SIZES, id2label={0: "a", 1: "b", 2: "c"})
    peer = getattr(transformers, name)(config).eval()
    ours = getattr(w2vbert, name)(config).eval()
    ours.load_state_dict(peer.state_dict())
    features = torch.randn(2, 30, 8)
    assert torch.allclose(ours(features)[0], peer(features)[0], atol=1e-5)
    assert ours.config.id2label == {0: "a", 1: "b", 2: "c"}
    with pytest.raises(TypeError, match=r"config must be a Wav2Vec2BertConfig, is 'facebook/w2v-bert-2\.0'"):
        getattr(w2vbert, name)("facebook/w2v-bert-2.0")
