"""`rotary`: frames are turned by their position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from w2vbert.encoder.positions.base import PositionScheme, register_position_scheme

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.encoder.layout import Layout


@register_position_scheme("rotary")
class Rotary(PositionScheme):
    """Su et al. 2021 (arXiv:2104.09864); nothing is learned."""

    @classmethod
    def check(cls, config: Wav2Vec2BertConfig) -> None:
        if config.head_size % 2:
            raise ValueError(
                f"'rotary' turns pairs of values, so the head size must be even, is {config.head_size}"
            )

    def shared(self, frames: Tensor, layout: Layout) -> Tensor:
        base = self.config.rotary_embedding_base
        return rotation(layout.positions, self.config.head_size, base=base, dtype=frames.dtype)

    def turn(self, frames: Tensor, shared: Tensor | None) -> Tensor:
        assert shared is not None
        return rotate(frames, shared)


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
