"""`relative_key`: a learned key for each clipped distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from w2vbert.encoder.positions.base import BlockBias, PositionScheme, register_position_scheme

if TYPE_CHECKING:
    from w2vbert.encoder.attention import SelfAttention


@register_position_scheme("relative_key")
class RelativeKey(PositionScheme):
    """Shaw et al. 2018 (arXiv:1803.02155); `distance_embedding` is learned."""

    def add_parameters(self, attention: SelfAttention) -> None:
        distances = self.config.left_max_position_embeddings + self.config.right_max_position_embeddings + 1
        attention.distance_embedding = nn.Embedding(distances, attention.head_size)

    def score(
        self, attention: SelfAttention, query: Tensor, keys: int, of_layer: Tensor | None
    ) -> tuple[Tensor, BlockBias | None]:
        return query, shaw_bias(
            query,
            attention.distance_embedding.weight,
            left=self.config.left_max_position_embeddings,
            right=self.config.right_max_position_embeddings,
            keys=keys,
            scale=attention.scaling,
        )


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
