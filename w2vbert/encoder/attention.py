"""Multi-head self-attention over packed sequences.

`SelfAttention` projects packed frames and lets the position scheme turn them. What remains is done by a
kernel that takes the pack as it is, where there is one (`w2vbert.kernels`), else by PyTorch's: `attend` sees
plain (batch, heads, frames, head_size) tensors and a `Scoring`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.layout import Layout
from w2vbert.encoder.positions import BlockBias, PositionScheme, position_scheme
from w2vbert.kernels import triton_runs

# Elements of the positional term that exist at a time: 16 MiB in float32, which allocators still reuse.
_BLOCK_ELEMENTS = 2**22
_SMALLEST_BLOCK = 64


class SelfAttention(nn.Module):
    """Scaled dot-product self-attention with a position scheme.

    Args:
        config: sizes, dropout and scheme.
        width: of the frames; `config.hidden_size` in the encoder, `config.encoded_size` in the adapter.
        positions: whether to use the configuration's scheme; the adapter's attention has none.
    """

    # What the published schemes learn; state-dict keys.
    distance_embedding: nn.Embedding
    linear_pos: nn.Linear
    pos_bias_u: nn.Parameter
    pos_bias_v: nn.Parameter

    def __init__(self, config: Wav2Vec2BertConfig, width: int, *, positions: bool = True) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_size = width // self.num_heads
        self.scaling = self.head_size**-0.5
        self.scheme = position_scheme(config) if positions else PositionScheme(config)

        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.attention_dropout)
        self.scheme.add_parameters(self)

    def forward(
        self, frames: Tensor, layout: Layout, positions: Tensor | None = None, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend within each sequence.

        Args:
            frames: (total, width).
            positions: `PositionScheme.shared` of the pass.
            need_weights: also return the weights, at the price of holding all of them.

        Returns:
            (total, width), and the weights (batch, heads, layout.width, layout.width), zero in padding, or
            `None`. Where all frames are valid the outputs are made of just these weights, so that a caller
            can keep their gradient.
        """
        turned = self.scheme.turn(frames, positions)
        projected = self.linear_q(turned), self.linear_k(turned), self.linear_v(frames)
        dropout = self.dropout.p if self.training else 0.0
        if not need_weights and not dropout:
            attended = self._by_kernel(projected, layout)
            if attended is not None:
                return self.linear_out(attended), None
        of_layer = self.scheme.of_layer(self, positions)
        outputs, weights, values = [], [], []
        for group, *of_group in zip(layout.groups, *map(layout.grouped, projected), strict=True):
            q, k, v = (group.heads(part, self.num_heads) for part in of_group)
            k, v = k[:, :, : group.keys], v[:, :, : group.keys]
            q, bias = self.scheme.score(self, q, group.keys, of_layer)
            scoring = Scoring(self.scaling, bias, group.mask, dropout)
            if need_weights:
                weights.append(attention_weights(q, k, scoring))
                values.append(v)
            else:
                outputs.append(attend(q, k, v, scoring))
        shown = None
        if need_weights:
            shown = _padded_weights(weights, layout)
            if layout.invalid is None:
                weights = [
                    shown[list(group.rows), :, : group.length, : group.keys] for group in layout.groups
                ]
            outputs = [weight @ value for weight, value in zip(weights, values, strict=True)]
        joined = [output.transpose(1, 2).flatten(2).flatten(0, 1) for output in outputs]
        return self.linear_out(layout.ungroup(joined)), shown

    def _by_kernel(self, projected: Sequence[Tensor], layout: Layout) -> Tensor | None:
        """(total, width), what the values add up to; `None` where no kernel does this."""
        if layout.places is not None or not triton_runs(*projected):
            return None
        query, key, value = (part.unflatten(-1, (self.num_heads, self.head_size)) for part in projected)
        band = self.scheme.band(self, query)
        if band is None or not triton_runs(band.products):
            return None
        from w2vbert.kernels.attention import LARGEST_HEAD, attention

        if self.head_size > LARGEST_HEAD:
            return None
        return attention((query, key, value), band, layout, self.scaling).flatten(1)


@dataclass(frozen=True, eq=False)
class Scoring:
    """How the products of queries and keys become weights.

    Attributes:
        scale: factor on the products.
        bias: positional term of a block of queries.
        mask: (batch, 1, 1, keys) bool, true where a key may be looked at; `None`: everywhere.
        dropout: share of weights dropped.
    """

    scale: float
    bias: BlockBias | None
    mask: Tensor | None
    dropout: float


def attend(query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
    """Attention through PyTorch's fused kernels, in blocks of queries where there is a positional term.

    Args:
        query: (batch, heads, queries, head_size).
        key, value: (batch, heads, keys, head_size).

    Returns:
        (batch, heads, queries, head_size).
    """
    bias, mask = scoring.bias, scoring.mask
    fused = partial(F.scaled_dot_product_attention, dropout_p=scoring.dropout, scale=scoring.scale)
    if bias is None:
        return fused(query, key, value, mask)
    batch, heads, queries, _ = query.shape
    block = max(_SMALLEST_BLOCK, _BLOCK_ELEMENTS // (batch * heads * key.shape[2]))
    outputs = []
    for start in range(0, queries, block):
        stop = min(start + block, queries)
        some, term = query[:, :, start:stop], bias(start, stop)
        traced = torch.jit.is_tracing()  # type: ignore[attr-defined]
        if (term.requires_grad or traced) and term.device.type == "cpu":
            # No fused kernel gives the term a gradient, and what stands in for it looks for queries that may
            # look at nothing. There are none here, and the search takes longer than the softmax. (A trace is
            # checked without gradients, and has to come out the same.)
            outputs.append(_weights(some, key, term, scoring) @ value)
            continue
        if mask is not None:
            term = term.masked_fill(~mask, float("-inf"))
        outputs.append(fused(some, key, value, term))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def attention_weights(query: Tensor, key: Tensor, scoring: Scoring) -> Tensor:
    """What `attend` weighs the values by: (batch, heads, queries, keys)."""
    term = None if scoring.bias is None else scoring.bias(0, query.shape[2])
    return _weights(query, key, term, scoring)


def _weights(query: Tensor, key: Tensor, term: Tensor | None, scoring: Scoring) -> Tensor:
    scores = (query * scoring.scale) @ key.transpose(-1, -2)
    if term is not None:
        scores = scores + term
    if scoring.mask is not None:
        scores = scores.masked_fill(~scoring.mask, float("-inf"))
    return F.dropout(scores.softmax(dim=-1), scoring.dropout)


def _padded_weights(weights: list[Tensor], layout: Layout) -> Tensor:
    if layout.places is not None:
        return weights[0] * layout.places[:, None, :, None]
    batch, width = len(layout.lengths), layout.width
    if min(layout.num_valid) == width and layout.groups[0].rows == tuple(range(batch)):
        return weights[0][:, :, :width]
    padded = weights[0].new_zeros(batch, weights[0].shape[1], width, width)
    for group, weight in zip(layout.groups, weights, strict=True):
        for row, of_row in zip(group.rows, weight, strict=True):
            length = layout.num_valid[row]
            padded[row, :, :length, :length] = of_row[:, :length, :length]
    return padded
