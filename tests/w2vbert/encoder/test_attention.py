"""Self-attention over packed sequences: paths agree, sequences stay apart, memory stays small."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder import attention as attention_module
from w2vbert.encoder import layout as layout_module
from w2vbert.encoder.attention import SelfAttention
from w2vbert.encoder.layout import Layout

CPU = torch.device("cpu")
SCHEMES = ["relative_key", "relative", "rotary", None]
WIDTH, HEADS = 16, 2


def build(scheme: str | None, **fields: Any) -> SelfAttention:
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        position_embeddings_type=scheme,
        left_max_position_embeddings=5,
        right_max_position_embeddings=2,
        **fields,
    )
    module = SelfAttention(config, WIDTH).eval()
    for name, parameter in module.named_parameters():
        if "pos_bias" in name:
            torch.nn.init.normal_(parameter)
    return module


def attend(
    module: SelfAttention, frames: Tensor, lengths: list[int], **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    layout = Layout(lengths, CPU)
    return module(frames, layout, module.scheme.shared(frames, layout), **kwargs)


@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_all_paths_agree(scheme: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    module, lengths = build(scheme), [150, 7, 1, 130, 64]
    frames = torch.randn(sum(lengths), WIDTH, generator=torch.Generator().manual_seed(1))
    whole, _ = attend(module, frames, lengths)
    stepwise, weights = attend(module, frames, lengths, need_weights=True)
    torch.testing.assert_close(stepwise, whole, atol=1e-5, rtol=1e-5)
    assert weights is not None
    mask = (torch.arange(150) < torch.tensor(lengths)[:, None]).float()[:, None, :]
    torch.testing.assert_close(weights.sum(-1), mask.expand(-1, HEADS, -1))

    monkeypatch.setattr(attention_module, "_BLOCK_ELEMENTS", 1)  # blocks of 64 queries
    torch.testing.assert_close(attend(module, frames, lengths)[0], whole, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(layout_module, "_SIMILAR_ON_CPU", 0.5)  # groups of unequal lengths
    torch.testing.assert_close(attend(module, frames, lengths)[0], whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        attend(module, frames, lengths, need_weights=True)[1], weights, atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("similar", [0.0, 1.0])
@torch.no_grad()
def test_sequences_do_not_see_each_other(
    scheme: str | None, similar: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_module, "_SIMILAR_ON_CPU", similar)
    module, lengths = build(scheme), [9, 12, 5]
    frames = torch.randn(26, WIDTH, generator=torch.Generator().manual_seed(2))
    before, _ = attend(module, frames, lengths)
    frames[9:21] += 100.0
    after, _ = attend(module, frames, lengths)
    assert torch.equal(before[:9], after[:9])
    assert torch.equal(before[21:], after[21:])
    assert not torch.allclose(before[9:21], after[9:21])


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements that any operation produces as memory of its own."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


@pytest.mark.parametrize("scheme", ["relative_key", "relative"])
@torch.no_grad()
def test_memory_grows_with_blocks_and_not_with_the_square_of_frames(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_module, "_BLOCK_ELEMENTS", 1)
    module, frames = build(scheme), 1500
    with LargestTensor() as recorded:
        attend(module, torch.randn(frames, WIDTH), [frames])
    block_of_terms = HEADS * 64 * 2 * frames
    assert recorded.elements <= block_of_terms
    assert block_of_terms < frames * frames / 5, "far below even one head's scores"


def test_dropout_acts_in_training_alone() -> None:
    module = build("relative_key", attention_dropout=0.5)
    frames = torch.randn(30, WIDTH, generator=torch.Generator().manual_seed(3))
    assert torch.equal(attend(module, frames, [30])[0], attend(module, frames, [30])[0])
    module.train()
    for need_weights in (False, True):
        torch.manual_seed(0)
        first, weights = attend(module, frames, [30], need_weights=need_weights)
        second, _ = attend(module, frames, [30], need_weights=need_weights)
        assert not torch.allclose(first, second)
    assert weights is not None
    dropped = (weights == 0).float().mean().item()
    assert dropped == pytest.approx(0.5, abs=0.1)
