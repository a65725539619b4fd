"""Saving and loading: what is read, what is announced, what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.w2vbert.heads.test_heads import build, config, features
from tests.w2vbert.pretrained.checkpoints import HEAD, assert_same, weights
from w2vbert.config import ConfigError, Wav2Vec2BertConfig
from w2vbert.heads import Wav2Vec2BertForAudioFrameClassification, Wav2Vec2BertForCTC, Wav2Vec2BertForXVector
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.pretrained.digest import backbone_digest
from w2vbert.pretrained.hub import CheckpointNotFoundError
from w2vbert.pretrained.weights import CheckpointError

# Weights that do not match the model


def test_a_head_on_a_bare_encoder(encoder: Path, ctc: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING, "w2vbert"):
        model, info = Wav2Vec2BertForCTC.from_pretrained(encoder, output_loading_info=True)  # type: ignore[misc]
    assert info == {
        "missing_keys": HEAD,
        "unexpected_keys": set(),
        "mismatched_keys": set(),
        "error_msgs": [],
    }
    assert "lm_head.bias, lm_head.weight of Wav2Vec2BertForCTC: newly initialised" in caplog.text
    expected = weights(Wav2Vec2BertForCTC.from_pretrained(ctc))
    for name in expected.keys() - HEAD:
        assert torch.equal(weights(model)[name], expected[name]), name
    assert model.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not model.lm_head.bias.any()


def test_the_encoder_of_a_task_checkpoint(encoder: Path, ctc: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "w2vbert"):
        model, info = Wav2Vec2BertModel.from_pretrained(ctc, output_loading_info=True)  # type: ignore[misc]
    assert info["unexpected_keys"] == HEAD
    assert not info["missing_keys"]
    assert "Wav2Vec2BertModel has no use for: lm_head.bias, lm_head.weight" in caplog.text
    assert_same(weights(model), weights(Wav2Vec2BertModel.from_pretrained(encoder)))


def test_another_task(ctc: Path) -> None:
    model, info = Wav2Vec2BertForXVector.from_pretrained(ctc, output_loading_info=True)  # type: ignore[misc]
    assert info["unexpected_keys"] == HEAD
    assert info["missing_keys"] == {n for n in weights(model) if not n.startswith("wav2vec2_bert.")}
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert backbone_digest(model) == backbone_digest(Wav2Vec2BertForCTC.from_pretrained(ctc))


def test_new_parts_of_the_encoder_are_initialised_as_published(ctc: Path) -> None:
    model, info = Wav2Vec2BertForCTC.from_pretrained(  # type: ignore[misc]
        ctc, position_embeddings_type="relative", output_loading_info=True
    )
    assert "wav2vec2_bert.encoder.layers.0.self_attn.distance_embedding.weight" in info["unexpected_keys"]
    name = "wav2vec2_bert.encoder.layers.0.self_attn.pos_bias_u"
    assert name in info["missing_keys"]
    bound = (6 / sum(weights(model)[name].shape)) ** 0.5
    largest = weights(model)[name].abs().max().item()
    assert 0.5 * bound < largest <= bound
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_other_shapes(ctc: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is \(6, 16\), should be \(9, 16\)"):
        Wav2Vec2BertForCTC.from_pretrained(ctc, vocab_size=9)
    with caplog.at_level(logging.WARNING, "w2vbert"):
        model, info = Wav2Vec2BertForCTC.from_pretrained(  # type: ignore[misc]
            ctc, vocab_size=9, ignore_mismatched_sizes=True, output_loading_info=True
        )
    assert info["mismatched_keys"] == {
        ("lm_head.weight", (6, 16), (9, 16)),
        ("lm_head.bias", (6,), (9,)),
    }
    assert "other shapes for lm_head.bias, lm_head.weight" in caplog.text
    assert model.lm_head.weight.shape == (9, 16)
    assert model.lm_head.weight.isfinite().all()
    assert_same(weights(model.wav2vec2_bert), weights(Wav2Vec2BertForCTC.from_pretrained(ctc).wav2vec2_bert))


def test_weights_of_something_else(tmp_path: Path) -> None:
    config().save_pretrained(tmp_path)
    save_file({"bert.pooler.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"none of its weights belongs.*bert\.pooler\.weight"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path)


def test_nothing_is_announced_when_all_fits(ctc: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "w2vbert"):
        Wav2Vec2BertForCTC.from_pretrained(ctc)
    assert not caplog.records


# Types, devices and other arguments


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.bfloat16", torch.bfloat16])
@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_dtype(encoder: Path, dtype: Any, name: str) -> None:
    model = Wav2Vec2BertForCTC.from_pretrained(encoder, **{name: dtype})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    exact = Wav2Vec2BertForCTC.from_pretrained(encoder, dtype="float32")
    for key in weights(model).keys() - HEAD:
        assert torch.equal(weights(model)[key], weights(exact)[key].bfloat16())


def test_dtype_of_the_checkpoint(tmp_path: Path, ctc: Path) -> None:
    build(Wav2Vec2BertForCTC).bfloat16().save_pretrained(tmp_path)
    assert Wav2Vec2BertForCTC.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert Wav2Vec2BertForCTC.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16
    assert Wav2Vec2BertForCTC.from_pretrained(tmp_path, dtype="float32").dtype == torch.float32
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["dtype"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert Wav2Vec2BertForCTC.from_pretrained(tmp_path).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["float31", "int8", torch.int32, 32])
def test_impossible_dtype(ctc: Path, dtype: Any) -> None:
    with pytest.raises(ValueError, match="floating type"):
        Wav2Vec2BertForCTC.from_pretrained(ctc, dtype=dtype)


@pytest.mark.parametrize("place", [{"device": "cpu"}, {"device_map": "cpu"}, {"device_map": {"": "cpu"}}, {}])
def test_device(ctc: Path, place: dict[str, Any]) -> None:
    assert Wav2Vec2BertForCTC.from_pretrained(ctc, **place).device == torch.device("cpu")


def test_a_device_map_over_several_devices_is_refused(ctc: Path) -> None:
    with pytest.raises(ValueError, match="one device"):
        Wav2Vec2BertForCTC.from_pretrained(ctc, device_map={"wav2vec2_bert": "cpu", "lm_head": "cpu"})


def test_published_arguments_without_effect(ctc: Path) -> None:
    model = Wav2Vec2BertForCTC.from_pretrained(ctc, low_cpu_mem_usage=True, attn_implementation="sdpa")
    assert not hasattr(model.config, "low_cpu_mem_usage")


def test_configuration_overrides(ctc: Path, tmp_path: Path) -> None:
    model = Wav2Vec2BertForCTC.from_pretrained(ctc, ctc_loss_reduction="mean", final_dropout=0.3)
    assert model.config.ctc_loss_reduction == "mean"
    assert model.dropout.p == 0.3
    with pytest.raises(ConfigError, match="ctc_los_reduction"):
        Wav2Vec2BertForCTC.from_pretrained(ctc, ctc_los_reduction="mean")
    given = config(final_dropout=0.2)
    model = Wav2Vec2BertForCTC.from_pretrained(ctc, config=given, ctc_zero_infinity=True)
    assert model.dropout.p == 0.2
    assert model.config.ctc_zero_infinity
    assert not given.ctc_zero_infinity, "the caller's configuration is left alone"
    config(final_dropout=0.4).save_pretrained(tmp_path)
    assert Wav2Vec2BertForCTC.from_pretrained(ctc, config=tmp_path).dropout.p == 0.4


def test_labels_of_a_new_task(encoder: Path) -> None:
    model = Wav2Vec2BertForAudioFrameClassification.from_pretrained(encoder, num_labels=4)
    assert model.classifier.out_features == 4
    assert model.config.id2label == {i: f"LABEL_{i}" for i in range(4)}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see what is mapped")
def test_weights_live_in_the_mapped_file(tmp_path: Path) -> None:
    """No second copy: every parameter's memory is the file's."""
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path)
    model = Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [
        range(*(int(address, 16) for address in line.split()[0].split("-")))
        for line in lines
        if line.endswith(str(tmp_path / "model.safetensors"))
    ]
    for name, parameter in model.named_parameters():
        assert any(parameter.data_ptr() in span for span in spans), name


# Vocabulary and languages


def save_open_vocabulary(path: Path, source: Path) -> None:
    """A checkpoint whose config.json leaves `vocab_size` open, as published ones do."""
    model = Wav2Vec2BertModel.from_pretrained(source)
    model.config.vocab_size = None
    model.save_pretrained(path)


def test_vocabulary_size_from_the_tokenizer(tmp_path: Path, encoder: Path) -> None:
    save_open_vocabulary(tmp_path, encoder)
    with pytest.raises(ConfigError, match="vocab_size"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    assert Wav2Vec2BertForCTC.from_pretrained(tmp_path, vocab_size=11).lm_head.out_features == 11
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5, "b": 6}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Wav2Vec2CTCTokenizer"}')
    assert Wav2Vec2BertForCTC.from_pretrained(tmp_path).lm_head.out_features == 7


def test_vocabulary_size_from_the_stored_head(tmp_path: Path) -> None:
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text()) | {"vocab_size": None}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    model = Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    assert model.config.vocab_size == 6


@pytest.fixture
def languages(tmp_path: Path) -> Path:
    """A checkpoint with weights for French: another vocabulary, and a norm of its own."""
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(7)
    french = {
        "lm_head.weight": torch.randn(8, 16, generator=generator),
        "lm_head.bias": torch.randn(8, generator=generator),
        "wav2vec2_bert.encoder.layers.0.final_layer_norm.bias": torch.randn(16, generator=generator),
    }
    save_file(french, tmp_path / "adapter.fra.safetensors")
    return tmp_path


def test_target_language(languages: Path, tmp_path: Path) -> None:
    french = load_file(languages / "adapter.fra.safetensors")
    model, info = Wav2Vec2BertForCTC.from_pretrained(  # type: ignore[misc]
        languages, target_lang="fra", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert model.target_lang == "fra"
    assert model.config.vocab_size == 8
    for name, tensor in french.items():
        assert torch.equal(weights(model)[name], tensor)
    packed = features()
    assert model.frame_logits(model.wav2vec2_bert.encode(packed)).frames.shape == (sum(packed.lengths), 8)
    plain = Wav2Vec2BertForCTC.from_pretrained(languages)
    assert plain.lm_head.out_features == 6
    plain.load_adapter("fra")
    assert_same(weights(plain), weights(model))
    model.save_pretrained(tmp_path / "french")
    assert_same(weights(Wav2Vec2BertForCTC.from_pretrained(tmp_path / "french")), weights(model))


def test_unknown_language(languages: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"no adapter\.deu\.safetensors"):
        Wav2Vec2BertForCTC.from_pretrained(languages, target_lang="deu")
    with pytest.raises(ValueError, match="from_pretrained"):
        Wav2Vec2BertForCTC(config(), target_lang="deu")
    with pytest.raises(TypeError, match="unexpected keyword argument 'revisions'"):
        Wav2Vec2BertForCTC.from_pretrained(languages).load_adapter("fra", revisions="main")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"lm_head.weight": (8, 16)}, r"lm_head\.bias"),
        ({"lm_head.weight": (6, 15), "lm_head.bias": (6,)}, r"lm_head\.weight"),
        ({"lm_heads.weight": (6, 16)}, r"lm_heads\.weight"),
        ({}, "empty"),
    ],
)
def test_language_weights_that_do_not_fit(
    languages: Path, content: dict[str, tuple[int, ...]], message: str
) -> None:
    save_file(
        {name: torch.ones(shape) for name, shape in content.items()}, languages / "adapter.x.safetensors"
    )
    model = Wav2Vec2BertForCTC.from_pretrained(languages)
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    with pytest.raises(CheckpointError, match=message):
        model.load_adapter("x")
    assert_same(weights(model), before)
    assert model.config.vocab_size == 6


def test_a_model_is_built_from_its_configuration_alone() -> None:
    model = Wav2Vec2BertForCTC(Wav2Vec2BertConfig(vocab_size=5, hidden_size=16, num_hidden_layers=1))
    assert model.base_model is model.wav2vec2_bert
    assert model.base_model.base_model is model.wav2vec2_bert
    total = sum(parameter.numel() for parameter in model.parameters())
    assert model.num_parameters() == total
    model.freeze_base_model()
    assert model.num_parameters(only_trainable=True) == 16 * 5 + 5
