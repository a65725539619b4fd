"""torch.compile, torch.export and torch.jit.trace, and what each of them cannot do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import w2vbert
from tests.dropin.models import twins
from tests.parity.configs import POSITIONS

MASK = (torch.arange(20) < torch.tensor([[20], [11]])).long()
# Fixed shapes, so that no branch depends on an input.
CLASSES: tuple[Any, ...] = (
    w2vbert.Wav2Vec2BertModel,
    w2vbert.Wav2Vec2BertForCTC,
    w2vbert.Wav2Vec2BertForSequenceClassification,
    w2vbert.Wav2Vec2BertForAudioFrameClassification,
    w2vbert.Wav2Vec2BertForXVector,
)


def features(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@pytest.mark.parametrize("model_class", CLASSES)
@torch.no_grad()
def test_one_graph(model_class: Any) -> None:
    model, _ = twins(model_class)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for seed in (0, 1):
        output, expected = compiled(features(seed)), model(features(seed))
        assert type(output) is type(expected)
        assert torch.allclose(output[0], expected[0], atol=1e-6)


@pytest.mark.slow
@torch.no_grad()
def test_with_a_mask_in_several_graphs() -> None:
    model, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    compiled = torch.compile(model, backend="eager")
    assert torch.allclose(compiled(features(), MASK).logits, model(features(), MASK).logits, atol=1e-6)
    other = MASK.flip(0)
    assert torch.allclose(compiled(features(), other).logits, model(features(), other).logits, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("return_dict", [True, False])
@torch.no_grad()
def test_export(return_dict: bool, positions: str | None) -> None:
    model, _ = twins(w2vbert.Wav2Vec2BertForCTC, position_embeddings_type=positions)
    model.config.return_dict = return_dict
    exported = torch.export.export(model, (features(),)).module()
    output = exported(features(1))
    assert isinstance(output, dict if return_dict else tuple)
    assert torch.allclose(output[0], model(features(1))[0], atol=1e-6)


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("positions", POSITIONS)
def test_trace(positions: str | None, gradient: bool, states: bool) -> None:
    model, _ = twins(w2vbert.Wav2Vec2BertForCTC, position_embeddings_type=positions)
    model.config.return_dict, model.config.output_hidden_states = False, states
    with torch.set_grad_enabled(gradient):
        traced = torch.jit.trace(model, (features(),))
        found, expected = traced(features(1)), model(features(1))
    assert torch.allclose(found[0], expected[0], atol=1e-6)
    assert len(found) == 1 + states


def test_a_graph_takes_no_mask() -> None:
    model, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    model.config.return_dict = False
    for make in (torch.export.export, torch.jit.trace):
        with pytest.raises(Exception, match="a mask decides shapes"):
            make(model, (features(), MASK))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_want_half_features(dtype: torch.dtype) -> None:
    model, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    model.to(dtype)
    with pytest.raises(TypeError, match=f"input_features are torch.float32 and the weights {dtype}: give"):
        model(features(), MASK)
    assert model(features().to(dtype), MASK).logits.dtype == dtype
    model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(model(features(), MASK).logits).all()
