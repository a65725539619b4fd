"""FlexAttention in the place of our kernel: what PyTorch's own compiler makes of the same attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from w2vbert.encoder.attention import SelfAttention
from w2vbert.encoder.layout import Layout
from w2vbert.model import Wav2Vec2BertModel

BLOCK = 128


def use_flex(model: Wav2Vec2BertModel, *, compile: bool) -> Wav2Vec2BertModel:
    """Changes a model: its attention is FlexAttention's from now on."""
    attend = torch.compile(flex_attention, dynamic=True) if compile else flex_attention
    masks: dict[int, tuple[Layout, BlockMask]] = {}
    for layer in model.encoder.layers:
        attention: Any = layer.self_attn
        attention._by_kernel = partial(_by_flex, attention, attend, masks)
    return model


def _by_flex(
    module: SelfAttention,
    attend: Any,
    masks: dict[int, tuple[Layout, BlockMask]],
    projected: Sequence[Tensor],
    layout: Layout,
) -> Tensor:
    if 0 not in masks or masks[0][0] is not layout:
        masks[0] = (layout, block_mask(layout))
    parts = [part.unflatten(-1, (module.num_heads, module.head_size)) for part in projected]
    band = module.scheme.band(module, parts[0])
    assert band is not None
    products, left, right = band.products * module.scaling, band.left, band.right

    def with_band(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        term: Tensor = products[query, head, torch.clamp(key - query, -left, right) + left]
        return score + term

    query, key, value = (part.transpose(0, 1).unsqueeze(0) for part in parts)
    attended = attend(query, key, value, score_mod=with_band, block_mask=masks[0][1], scale=module.scaling)
    joined: Tensor = attended.squeeze(0).transpose(0, 1).flatten(1)
    return joined


def block_mask(layout: Layout) -> BlockMask:
    """Of sequences end to end, from their borders: no tensor of all pairs of frames, as PyTorch makes one."""
    ends = torch.tensor(layout.lengths, device=layout.device).cumsum(0)[layout.rows]
    starts = torch.arange(layout.total, device=layout.device) - layout.ordinals
    valid = starts + torch.tensor(layout.num_valid, device=layout.device)[layout.rows]
    rows = layout.rows

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen: Tensor = (rows[query] == rows[key]) & (key < valid[query])
        return seen

    first = torch.arange(0, layout.total, BLOCK, device=layout.device)
    last = (first + BLOCK - 1).clamp(max=layout.total - 1)
    from_block = starts[first] // BLOCK
    counts = (ends[last] - 1) // BLOCK - from_block + 1
    indices = from_block[:, None] + torch.arange(len(first), device=layout.device)
    indices = indices.clamp(max=len(first) - 1)
    mask: BlockMask = BlockMask.from_kv_blocks(
        counts[None, None].int(),
        indices[None, None].int(),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(layout.total, layout.total),
    )
    return mask
