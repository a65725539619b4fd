"""Arguments that callers of the published methods give: they work, or are told by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import w2vbert
from tests.dropin.models import twins


@pytest.fixture
def model() -> w2vbert.Wav2Vec2BertForCTC:
    return twins(w2vbert.Wav2Vec2BertForCTC)[0]


def same(one: Any, other: Any) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(weight, theirs[name]) for name, weight in one.state_dict().items())


@pytest.mark.parametrize("size", ["50GB", "2KB"])
def test_variants(model: w2vbert.Wav2Vec2BertForCTC, size: str, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, variant="fp16", max_shard_size=size)
    assert not (tmp_path / "model.safetensors").exists()
    for library in (w2vbert, transformers):
        assert same(library.Wav2Vec2BertForCTC.from_pretrained(tmp_path, variant="fp16"), model)
    with pytest.raises(OSError, match=r"no weights \(model\.safetensors"):
        w2vbert.Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    peer = transformers.Wav2Vec2BertForCTC.from_pretrained(tmp_path, variant="fp16")
    peer.save_pretrained(tmp_path / "its", variant="new", max_shard_size=size)
    assert same(w2vbert.Wav2Vec2BertForCTC.from_pretrained(tmp_path / "its", variant="new"), model)


def test_given_weights(model: w2vbert.Wav2Vec2BertForCTC, tmp_path: Path) -> None:
    doubled = {name: 2 * weight for name, weight in model.state_dict().items()}
    again = w2vbert.Wav2Vec2BertForCTC.from_pretrained(None, config=model.config, state_dict=doubled)
    assert torch.equal(again.lm_head.weight, 2 * model.lm_head.weight)
    doubled["lm_head.weight"].zero_()
    assert again.lm_head.weight.abs().sum() > 0, "a copy"
    model.save_pretrained(tmp_path, state_dict=doubled)
    saved = w2vbert.Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    assert saved.lm_head.weight.abs().sum() == 0
    fresh = w2vbert.Wav2Vec2BertForCTC.from_pretrained(None, config=model.config, state_dict={})
    assert fresh.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.3)


def test_another_process_writes(model: w2vbert.Wav2Vec2BertForCTC, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "here", is_main_process=False)
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"attn_implementation": "sdpa"},
        {"attn_implementation": "eager"},
        {"device_map": "cpu"},
        {"device_map": {"": "cpu"}},
        {"device_map": "auto"},
        {"quantization_config": None, "max_memory": None, "tp_plan": None, "load_in_8bit": False},
        {"low_cpu_mem_usage": True, "trust_remote_code": False, "force_download": False, "revision": None},
        {"torch_dtype": "float32"},
        {"dtype": torch.float32},
    ],
    ids=str,
)
def test_arguments_of_from_pretrained(
    model: w2vbert.Wav2Vec2BertForCTC, arguments: dict[str, Any], tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    again = w2vbert.Wav2Vec2BertForCTC.from_pretrained(tmp_path, **arguments)
    assert same(again.to("cpu"), model)
    assert again.config._attn_implementation == arguments.get("attn_implementation", "sdpa")
    assert "_attn_implementation" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            {"quantization_config": {"load_in_4bit": True}},
            r"quantization_config=\.\.\.\): there is no support for quantized",
        ),
        ({"tp_plan": "auto"}, "tensor parallelism"),
        ({"max_memory": {0: "1GB"}}, "spread over devices"),
        ({"attn_implementation": "flash_attention_2"}, 'attn_implementation="flash_attention_2"` is not'),
        ({"no_such_field": 1}, "no_such_field: is no field"),
    ],
    ids=str,
)
def test_what_there_is_not_is_told(
    model: w2vbert.Wav2Vec2BertForCTC, arguments: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=complaint):
        w2vbert.Wav2Vec2BertForCTC.from_pretrained(tmp_path, **arguments)


def test_no_weights_without_memory(model: w2vbert.Wav2Vec2BertForCTC, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    with torch.device("meta"), pytest.raises(RuntimeError, match="meta device"):
        w2vbert.Wav2Vec2BertForCTC.from_pretrained(tmp_path)


def test_what_cannot_be_written_is_told(model: w2vbert.Wav2Vec2BertForCTC, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, safe_serialization=True, token=None, save_original_format=True)
    assert same(w2vbert.Wav2Vec2BertForCTC.from_pretrained(tmp_path), model)
    with pytest.raises(
        ValueError, match="safe_serialization=False: weights are written as safetensors alone"
    ):
        model.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sharding'"):
        model.save_pretrained(tmp_path, sharding=True)


@pytest.mark.parametrize("what", ["model", "config"])
def test_pushing_without_a_network(
    model: w2vbert.Wav2Vec2BertForCTC, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    pushed = model if what == "model" else model.config
    with pytest.raises(ConnectionError, match="'owner/name' was not uploaded"):
        pushed.push_to_hub("owner/name", token="hf_none")
    with pytest.raises(ConnectionError, match="'name' was not uploaded"):
        pushed.save_pretrained(tmp_path / "name", push_to_hub=True, token="hf_none")
    assert w2vbert.Wav2Vec2BertConfig.from_pretrained(tmp_path / "name") is not None
    with pytest.raises(TypeError, match="push_to_hub has no argument 'where'"):
        pushed.push_to_hub("owner/name", where="there")


class OwnConfig(w2vbert.Wav2Vec2BertConfig):
    model_type = "own-bert"


class OwnModel(w2vbert.Wav2Vec2BertForCTC):
    config_class = OwnConfig


def test_a_registered_subclass_is_loaded_by_auto_classes(
    model: w2vbert.Wav2Vec2BertForCTC, tmp_path: Path
) -> None:
    own = OwnModel(OwnConfig(**{**model.config.to_dict(), "model_type": "own-bert"}))
    own.save_pretrained(tmp_path)
    transformers.AutoConfig.register("own-bert", OwnConfig)
    transformers.AutoModelForCTC.register(OwnConfig, OwnModel)
    loaded = transformers.AutoModelForCTC.from_pretrained(tmp_path)
    assert type(loaded) is OwnModel
    assert type(loaded.config) is OwnConfig
    assert same(loaded, own)
