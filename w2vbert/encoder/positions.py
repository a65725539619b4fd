"""How attention learns where a frame is: the published position schemes, as functions.

Each relative scheme adds a term to the scores of queries and keys. The term is a function of a block of
queries, so that no more than a block of it need exist at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

BlockBias = Callable[[int, int], Tensor]
"""(start, stop) -> (batch, heads, stop - start, keys): what to add to the scaled scores of those queries."""


def shaw_bias(
    query: Tensor, embedding: Tensor, *, left: int, right: int, keys: int, scale: float
) -> BlockBias:
    """Relative keys of Shaw et al. 2018 (arXiv:1803.02155): `scale * q_i . e[clip(j - i, -left, right)]`.

    A query meets only `left + right + 1` distinct embeddings. All products with them are formed and then
    laid out over the keys; outside the band of `left` keys before and `right` after the query every key
    gets the same product. Hence no tensor of (queries, keys, head_size) as in the published code.

    Args:
        query: (batch, heads, queries, head_size).
        embedding: (left + right + 1, head_size), for distances -left to right.
        keys: number of keys.
        scale: factor on all scores, usually head_size ** -0.5.
    """
    embedding = embedding.to(query.dtype) * scale

    def bias(start: int, stop: int) -> Tensor:
        products = query[:, :, start:stop] @ embedding.T
        first = min(max(start - left, 0), keys)
        last = max(min(stop + right, keys), first)
        distance = torch.arange(first, last, device=query.device) - torch.arange(
            start, stop, device=query.device
        ).unsqueeze(1)
        index = (distance.clamp(-left, right) + left).expand(*products.shape[:2], -1, -1)
        return torch.cat(
            (
                products[..., :1].expand(-1, -1, -1, first),
                products.gather(-1, index),
                products[..., -1:].expand(-1, -1, -1, keys - last),
            ),
            dim=-1,
        )

    return bias


def transformer_xl_bias(query: Tensor, relative_key: Tensor, *, keys: int, scale: float) -> BlockBias:
    """Relative positions of Transformer-XL (Dai et al. 2019, arXiv:1901.02860): `scale * (q_i + v) . r[i -
    j]`.

    Args:
        query: (batch, heads, queries, head_size), the position bias `v` added.
        relative_key: (heads, 2 * length - 1, head_size), projected sinusoids of the distances length - 1
            down to
            1 - length, where length >= queries, keys.
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


def rotation(positions: Tensor, head_size: int, *, base: float, dtype: torch.dtype) -> Tensor:
    """Cosines and sines that turn frames by their position, (2, total, 1, head_size).

    Angles are computed in float32 whatever the model's dtype, and never kept: nothing can go stale.

    Args:
        positions: (total,), the place of each frame in its sequence.
        base: of the geometric series of frequencies (`rotary_embedding_base`).
    """
    exponent = torch.arange(0, head_size, 2, device=positions.device).float() / head_size
    angle = positions.float().unsqueeze(1) * (1.0 / base**exponent)
    angle = torch.cat((angle, angle), dim=-1).unsqueeze(1)
    return torch.stack((angle.cos(), angle.sin())).to(dtype)


def rotate(frames: Tensor, turn: Tensor) -> Tensor:
    """Rotary positions of Su et al. 2021 (arXiv:2104.09864), applied as published: before the query and key
    projections.

    Args:
        frames: (total, heads * head_size).
        turn: (2, total, 1, head_size) from `rotation`.
    """
    heads: Tensor = frames.unflatten(-1, (-1, turn.shape[-1]))
    first, second = heads.chunk(2, dim=-1)
    cos, sin = turn
    rotated: Tensor = heads * cos + torch.cat((-second, first), dim=-1) * sin
    return rotated.flatten(1)
