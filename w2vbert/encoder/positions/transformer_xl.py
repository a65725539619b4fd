"""`relative`: projected sinusoids of the distance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from w2vbert.encoder.positions.base import BlockBias, PositionScheme, register_position_scheme

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.encoder.attention import SelfAttention
    from w2vbert.encoder.layout import Layout


@register_position_scheme("relative")
class TransformerXL(PositionScheme):
    """Dai et al. 2019 (arXiv:1901.02860); `linear_pos`, `pos_bias_u` and `pos_bias_v` are learned."""

    @classmethod
    def check(cls, config: Wav2Vec2BertConfig) -> None:
        if config.hidden_size % 2:
            raise ValueError(
                f"'relative' pairs sines with cosines, so hidden_size must be even, is {config.hidden_size}"
            )

    def add_parameters(self, attention: SelfAttention) -> None:
        heads, head_size = attention.num_heads, attention.head_size
        attention.linear_pos = nn.Linear(heads * head_size, heads * head_size, bias=False)
        attention.pos_bias_u = nn.Parameter(torch.zeros(heads, head_size))
        attention.pos_bias_v = nn.Parameter(torch.zeros(heads, head_size))

    def init_parameters(self, attention: SelfAttention) -> None:
        nn.init.xavier_uniform_(attention.pos_bias_u)
        nn.init.xavier_uniform_(attention.pos_bias_v)

    def shared(self, frames: Tensor, layout: Layout) -> Tensor:
        return sinusoids(layout.longest, self.config.hidden_size, device=frames.device, dtype=frames.dtype)

    def of_layer(self, attention: SelfAttention, shared: Tensor | None) -> Tensor:
        """Keys of the distances: (heads, 2 * length - 1, head_size)."""
        keys: Tensor = attention.linear_pos(shared)
        return keys.view(-1, attention.num_heads, attention.head_size).transpose(0, 1)

    def score(
        self, attention: SelfAttention, query: Tensor, keys: int, of_layer: Tensor | None
    ) -> tuple[Tensor, BlockBias | None]:
        assert of_layer is not None
        of_position = query + attention.pos_bias_v.unsqueeze(1)
        bias = transformer_xl_bias(of_position, of_layer, keys=keys, scale=attention.scaling)
        return query + attention.pos_bias_u.unsqueeze(1), bias


def transformer_xl_bias(query: Tensor, relative_key: Tensor, *, keys: int, scale: float) -> BlockBias:
    """Relative positions of Dai et al. 2019 (arXiv:1901.02860): `scale * (q_i + v) . r[i - j]`.

    Args:
        query: (batch, heads, queries, head_size), the position bias `v` added.
        relative_key: (heads, 2 * length - 1, head_size), projected sinusoids of the distances length - 1
            down to 1 - length, where length >= queries, keys.
        keys: number of keys.
        scale: factor on all scores, usually head_size ** -0.5.
    """
    zero = relative_key.shape[1] // 2  # where distance 0 is

    def bias(start: int, stop: int) -> Tensor:
        count = stop - start
        # The block meets the distances stop - 1 (last query, first key) down to start - keys + 1.
        met = relative_key[:, zero - stop + 1 : zero - start + keys]
        products = (query[:, :, start:stop] * scale) @ met.transpose(-1, -2)
        if count == 1:
            return products
        # Row i of the block starts at column count - 1 - i. Read with rows one shorter, the rows line up.
        width = products.shape[-1]
        flat = products.flatten(-2)[..., count - 1 : count * width - 1]
        rows: Tensor = flat.unflatten(-1, (count, width - 1))
        return rows[..., :keys]

    return bias


def sinusoids(length: int, width: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sinusoids of the distances length - 1 down to 1 - length, (2 * length - 1, width).

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, with negative positions as in Transformer-XL.
    Sine and cosine alternate. Computed for the length at hand, in float32, which costs little beside a layer.

    Args:
        length: frames of the longest sequence.
        width: even.
    """
    distance = torch.arange(length - 1, -length, -1, device=device).float()
    rate = torch.exp(torch.arange(0, width, 2, device=device).float() * (-math.log(10000.0) / width))
    angle = distance.unsqueeze(1) * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(dtype)
