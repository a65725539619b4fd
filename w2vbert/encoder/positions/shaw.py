"""`relative_key`: a learned key for each clipped distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from w2vbert.encoder.positions.base import Band, BlockBias, PositionScheme, register_position_scheme

if TYPE_CHECKING:
    from w2vbert.encoder.attention import SelfAttention


@register_position_scheme("relative_key")
class RelativeKey(PositionScheme):
    """Shaw et al. 2018 (arXiv:1803.02155); `distance_embedding` is learned."""

    def add_parameters(self, attention: SelfAttention) -> None:
        attention.distance_embedding = nn.Embedding(self._distances, attention.head_size)

    @property
    def _distances(self) -> int:
        return self.config.left_max_position_embeddings + self.config.right_max_position_embeddings + 1

    def score(
        self, attention: SelfAttention, query: Tensor, keys: int, of_layer: Tensor | None
    ) -> tuple[Tensor, BlockBias | None]:
        return query, shaw_bias(
            query,
            self._embedding(attention, query.device),
            left=self.config.left_max_position_embeddings,
            right=self.config.right_max_position_embeddings,
            keys=keys,
            scale=attention.scaling,
        )

    def band(self, attention: SelfAttention, query: Tensor) -> Band:
        # A multiple of eight of them: matrix products want rows that begin at multiples of 16 bytes.
        embedding = F.pad(self._embedding(attention, query.device), (0, 0, 0, -self._distances % 8))
        return Band(
            query @ embedding.to(query.dtype).T,
            self.config.left_max_position_embeddings,
            self.config.right_max_position_embeddings,
        )

    def _embedding(self, attention: SelfAttention, device: torch.device) -> Tensor:
        # The module is called, not its weight read: adapters and offloading hang on the call.
        embedding: Tensor = attention.distance_embedding(torch.arange(self._distances, device=device))
        return embedding


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
        rows = stop - start
        every = _clipped(products, 1 - stop, keys - 1 - start, left, right)
        batch, heads, _, length = every.shape
        # Key 0 of row i lies at `rows - 1 - i`, so each row begins one number earlier than the one before.
        strides = (heads * rows * length, rows * length, length - 1, 1)
        laid_out = every.as_strided((batch, heads, rows, keys), strides, rows - 1)
        return laid_out if every.device.type == "cpu" else laid_out.contiguous()  # as GPU kernels want it

    return bias


def _clipped(products: Tensor, first: int, last: int, left: int, right: int) -> Tensor:
    """(..., distances -left to right) -> (..., distances first to last), clipped."""
    count = last - first + 1
    before, after = min(max(-left - first, 0), count), min(max(last - right, 0), count)
    shape = products.shape[:-1]
    parts = (
        products[..., :1].expand(*shape, before),
        products[..., max(first + left, 0) : max(last + left + 1, 0)],
        products[..., -1:].expand(*shape, after),
    )
    return torch.cat(parts, dim=-1)
