"""Multi-head self-attention over packed sequences.

`SelfAttention` projects packed frames and knows the position scheme; a backend (`attend`,
`attend_with_weights`) sees plain (batch, heads, frames, head_size) tensors, a key mask and the positional
term. A backend for another device is one more function of that signature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.layout import Group, Layout
from w2vbert.encoder.positions import BlockBias, rotate, shaw_bias, transformer_xl_bias

# Elements of the positional term that exist at a time: 16 MiB in float32, which allocators still reuse.
_BLOCK_ELEMENTS = 2**22
_SMALLEST_BLOCK = 64


class SelfAttention(nn.Module):
    """Scaled dot-product self-attention with one of the published position schemes.

    Args:
        config: sizes, dropout and scheme.
        width: of the frames; `config.hidden_size` in the encoder, `config.encoded_size` in the adapter.
        positions: whether to use `config.position_embeddings_type`; the adapter's attention has none.
    """

    def __init__(self, config: Wav2Vec2BertConfig, width: int, *, positions: bool = True) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_size = width // self.num_heads
        self.scaling = self.head_size**-0.5
        self.position_embeddings_type = config.position_embeddings_type if positions else None

        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.attention_dropout)

        if self.position_embeddings_type == "relative":
            self.linear_pos = nn.Linear(width, width, bias=False)
            self.pos_bias_u = nn.Parameter(torch.zeros(self.num_heads, self.head_size))
            self.pos_bias_v = nn.Parameter(torch.zeros(self.num_heads, self.head_size))
        elif self.position_embeddings_type == "relative_key":
            self.left = config.left_max_position_embeddings
            self.right = config.right_max_position_embeddings
            self.distance_embedding = nn.Embedding(self.left + self.right + 1, self.head_size)

    def forward(
        self, frames: Tensor, layout: Layout, positions: Tensor | None = None, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend within each sequence.

        Args:
            frames: (total, width).
            positions: what the scheme needs of the pass: `rotation` for rotary, `sinusoids` for relative,
                else `None`.
            need_weights: also return the weights, at the price of holding all of them.

        Returns:
            (total, width), and the weights (batch, heads, max_length, max_length), zero in padding, or
            `None`.
        """
        turned = frames
        if self.position_embeddings_type == "rotary":
            assert positions is not None
            turned = rotate(frames, positions)
        query, key, value = self.linear_q(turned), self.linear_k(turned), self.linear_v(frames)

        relative_key = None
        if self.position_embeddings_type == "relative":
            assert positions is not None
            relative_key = self.linear_pos(positions).view(-1, self.num_heads, self.head_size).transpose(0, 1)

        dropout = self.dropout.p if self.training else 0.0
        outputs, weights = [], []
        for group in layout.groups:
            q = group.heads(query, self.num_heads)
            k = group.heads(key, self.num_heads)[:, :, : group.keys]
            v = group.heads(value, self.num_heads)[:, :, : group.keys]
            bias = self._bias(q, group, relative_key)
            if self.position_embeddings_type == "relative":
                q = q + self.pos_bias_u.unsqueeze(1)
            if need_weights:
                output, weight = attend_with_weights(q, k, v, bias, group.mask, self.scaling, dropout)
                weights.append(weight)
            else:
                output = attend(q, k, v, bias, group.mask, self.scaling, dropout)
            outputs.append(output.transpose(1, 2).flatten(2).flatten(0, 1))
        output = self.linear_out(layout.ungroup(outputs))
        return output, _padded_weights(weights, layout) if need_weights else None

    def _bias(self, query: Tensor, group: Group, relative_key: Tensor | None) -> BlockBias | None:
        if self.position_embeddings_type == "relative_key":
            return shaw_bias(
                query,
                self.distance_embedding.weight,
                left=self.left,
                right=self.right,
                keys=group.keys,
                scale=self.scaling,
            )
        if relative_key is not None:
            query = query + self.pos_bias_v.unsqueeze(1)
            return transformer_xl_bias(query, relative_key, keys=group.keys, scale=self.scaling)
        return None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: BlockBias | None,
    mask: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attention through PyTorch's fused kernels, in blocks of queries where there is a positional term.

    Args:
        query: (batch, heads, queries, head_size).
        key, value: (batch, heads, keys, head_size).
        bias: positional term of a block of queries.
        mask: (batch, 1, 1, keys) bool, true where a key may be attended to; `None`: everywhere.
        scale: factor on the products of queries and keys.
        dropout: share of weights dropped.

    Returns:
        (batch, heads, queries, head_size).
    """
    if bias is None:
        return F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scale)
    batch, heads, queries, _ = query.shape
    block = max(_SMALLEST_BLOCK, _BLOCK_ELEMENTS // (batch * heads * key.shape[2]))
    outputs = []
    for start in range(0, queries, block):
        stop = min(start + block, queries)
        term = bias(start, stop)
        if mask is not None:
            term = term.masked_fill(~mask, float("-inf"))
        outputs.append(
            F.scaled_dot_product_attention(query[:, :, start:stop], key, value, term, dropout, scale=scale)
        )
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def attend_with_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: BlockBias | None,
    mask: Tensor | None,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """As `attend`, step by step, to have the weights too: (batch, heads, queries, keys)."""
    scores = (query * scale) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias(0, query.shape[2])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = F.dropout(scores.softmax(dim=-1), dropout)
    return weights @ value, weights


def _padded_weights(weights: list[Tensor], layout: Layout) -> Tensor:
    longest = max(layout.num_valid)
    padded = weights[0].new_zeros(len(layout.lengths), weights[0].shape[1], longest, longest)
    for group, weight in zip(layout.groups, weights, strict=True):
        for row, of_row in zip(group.rows, weight, strict=True):
            length = layout.num_valid[row]
            padded[row, :, :length, :length] = of_row[:, :length, :length]
    return padded
