"""Hidden states and attentions that are shown lie on the way of the gradient, for any mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import w2vbert
from tests.dropin.models import twins
from tests.parity.configs import POSITIONS

FRAMES = 12
MASKS: dict[str, Any] = {
    "none": None,
    "right": [[1] * 12, [1] * 7 + [0] * 5, [1] * 3 + [0] * 9],
    "short": [[1] * 9 + [0] * 3, [1] * 9 + [0] * 3, [1] * 2 + [0] * 10],
    "left": [[1] * 12, [0] * 5 + [1] * 7, [0] * 9 + [1] * 3],
    "holes": [[1] * 12, [1, 0] * 6, [0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1]],
}


def shown(
    model: Any, features: Tensor, mask: Tensor | None, weights: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states and attentions with the gradients of a sum over the frames that are no padding."""
    output = model(features, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    for tensor in (*output.hidden_states, *output.attentions):
        tensor.retain_grad()
    counted = torch.ones(3, FRAMES) if mask is None else mask
    (output.last_hidden_state * weights * counted[..., None]).sum().backward()
    return list(output.hidden_states), list(output.attentions)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("kind", MASKS)
def test_gradients_are_the_peer_s(positions: str | None, kind: str) -> None:
    ours, peer = twins(w2vbert.Wav2Vec2BertModel, position_embeddings_type=positions)
    peer.set_attn_implementation("eager")
    mask = None if MASKS[kind] is None else torch.tensor(MASKS[kind])
    counted = torch.ones(3, FRAMES) if mask is None else mask
    features, weights = torch.randn(3, FRAMES, 8), torch.randn(3, FRAMES, 16)
    states, attentions = shown(ours, features, mask, weights)
    its_states, its_attentions = shown(peer, features, mask, weights)
    for mine, its in zip(states[:-1], its_states[:-1], strict=True):
        assert torch.allclose(mine * counted[..., None], its * counted[..., None], atol=1e-5)
        assert torch.allclose(mine.grad * counted[..., None], its.grad * counted[..., None], atol=1e-4)
    assert states[-1].grad.abs().sum() > 0
    seen = counted[:, None, :, None] * counted[:, None, None, :]
    for mine, its in zip(attentions, its_attentions, strict=True):
        assert torch.allclose(mine, its * seen, atol=1e-5)
        assert torch.allclose(mine.grad * seen, its.grad * seen, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    mask=st.lists(
        st.lists(st.booleans(), min_size=FRAMES, max_size=FRAMES).filter(any), min_size=3, max_size=3
    ),
    positions=st.sampled_from(POSITIONS),
)
def test_any_mask_gives_the_peer_s_states(mask: list[list[bool]], positions: str | None) -> None:
    ours, peer = twins(w2vbert.Wav2Vec2BertModel, position_embeddings_type=positions)
    marked, features = torch.tensor(mask), torch.randn(3, FRAMES, 8)
    with torch.no_grad():
        mine = ours(features, marked.long()).last_hidden_state
        its = peer(features, attention_mask=marked.long()).last_hidden_state
    assert torch.allclose(mine[marked], its[marked], atol=1e-5)
    assert mine[~marked].abs().sum() == 0
