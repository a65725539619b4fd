"""Digests of weights: the same for the same numbers, whatever the file; another for any other number."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch

from tests.w2vbert.heads.test_heads import build
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.heads import Wav2Vec2BertForCTC
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.pretrained.digest import _WITHOUT_EFFECT, backbone_digest, weights_digest


def test_weights_digest() -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1, dtype=torch.int64)}
    digest = weights_digest(tensors)
    assert len(digest) == 64
    assert digest == weights_digest(dict(reversed(tensors.items())))
    others = [
        {**tensors, "a": tensors["a"].view(3, 2)},
        {**tensors, "a": tensors["a"] + 1e-6},
        {**tensors, "b": tensors["b"].int()},
        {**tensors, "a": tensors["a"].view(torch.int32)},
        {"a": tensors["a"], "c": tensors["b"]},
        {"a": tensors["a"]},
    ]
    digests = {weights_digest(other) for other in others}
    assert len(digests) == len(others)
    assert digest not in digests
    assert weights_digest({"a": tensors["a"].bfloat16()}) != weights_digest({"a": tensors["a"]})


def test_digest_of_views_and_models() -> None:
    square = torch.arange(9.0).view(3, 3)
    assert weights_digest({"a": square.T}) == weights_digest({"a": square.T.contiguous()})
    model = build(Wav2Vec2BertForCTC)
    assert weights_digest(model.state_dict()) == weights_digest(build(Wav2Vec2BertForCTC).state_dict())


def test_backbone_digest(tmp_path: Path) -> None:
    model = build(Wav2Vec2BertForCTC)
    encoder = tmp_path / "encoder"
    model.wav2vec2_bert.save_pretrained(encoder)
    digest = backbone_digest(model)
    assert digest == backbone_digest(Wav2Vec2BertModel.from_pretrained(encoder))
    assert digest == backbone_digest(model.wav2vec2_bert)
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
        model.wav2vec2_bert.masked_spec_embed.add_(1.0)
    assert backbone_digest(model) == digest, "neither the head nor the mask vector is computed with"
    assert backbone_digest(Wav2Vec2BertModel.from_pretrained(encoder, hidden_act="relu")) != digest
    with torch.no_grad():
        model.wav2vec2_bert.encoder.layers[0].ffn1.output_dense.bias[0] += 1e-3
    assert backbone_digest(model) != digest


def changed(value: object) -> object:
    """Another value of the kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"other {value}"
        case _:
            return ["another"]


def test_a_field_counts_unless_it_is_listed() -> None:
    """A forgotten field must make two encoders different, never equal."""
    model = build(Wav2Vec2BertForCTC)
    digest = backbone_digest(model)
    without_effect = set()
    for field in fields(Wav2Vec2BertConfig):
        value = getattr(model.config, field.name)
        if field.name == "position_embeddings_type":
            continue
        setattr(model.config, field.name, changed(value))
        if backbone_digest(model) == digest:
            without_effect.add(field.name)
        setattr(model.config, field.name, value)
    assert without_effect == _WITHOUT_EFFECT
    encoder = {
        "hidden_act",
        "layer_norm_eps",
        "num_attention_heads",
        "adapter_stride",
        "rotary_embedding_base",
    }
    assert not encoder & without_effect


def test_keys_that_nothing_reads_do_not_count() -> None:
    model = build(Wav2Vec2BertForCTC)
    digest = backbone_digest(model)
    model.config.transformers_version = "5.23.0"  # type: ignore[attr-defined]
    assert backbone_digest(model) == digest
