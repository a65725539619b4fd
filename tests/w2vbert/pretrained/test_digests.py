"""Digests of weights: the same for the same numbers, whatever the file; another for any other number."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.w2vbert.heads.test_heads import build
from w2vbert.heads import Wav2Vec2BertForCTC
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.pretrained.digest import backbone_digest, weights_digest


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
    assert weights_digest(model) == weights_digest(model.state_dict())


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
