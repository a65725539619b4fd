"""Codes of frames, for models to predict: a random projection and random codebooks, which are never trained.

Source: Chiu et al. 2022, "Self-supervised Learning with Random-projection Quantizer for Speech Recognition"
(BEST-RQ, arXiv:2202.01855).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FRAMES_AT_ONCE = 1024  # each is compared with every entry of a codebook


class RandomProjectionQuantizer(nn.Module):
    """The nearest entries of codebooks, by cosine, to projected frames.

    Projections are Xavier-uniform, entries normal and then of unit length. All are functions of the seed
    alone: no checkpoint holds them, and a further codebook changes none before it.

    Args:
        input_dim: width of the frames.
        codebook_size: entries of a codebook.
        codebook_dim: width of an entry.
        num_codebooks: each has a projection of its own.
        seed: of all weights.
    """

    projections: Tensor
    codebooks: Tensor

    def __init__(
        self,
        input_dim: int = 160,
        codebook_size: int = 8192,
        codebook_dim: int = 16,
        num_codebooks: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        bound = (6 / (input_dim + codebook_dim)) ** 0.5
        projections, codebooks = [], []
        for _ in range(num_codebooks):
            uniform = torch.rand(input_dim, codebook_dim, generator=generator, dtype=torch.float64)
            projections.append((2 * uniform - 1) * bound)
            entries = torch.randn(codebook_size, codebook_dim, generator=generator, dtype=torch.float64)
            codebooks.append(F.normalize(entries, dim=1))
        # Rounded: processors may disagree about the last digits of a float64.
        self.register_buffer("projections", torch.stack(projections).float(), persistent=False)
        self.register_buffer("codebooks", torch.stack(codebooks).float(), persistent=False)

    @property
    def num_codebooks(self) -> int:
        return len(self.codebooks)

    @property
    def codebook_size(self) -> int:
        return self.codebooks.shape[1]

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """Codes of frames.

        Args:
            frames: (total, input_dim), normalised per feature, as the extractor gives them.

        Returns:
            (total, num_codebooks) int64, from 0 to codebook_size - 1.
        """
        codes = frames.new_empty(len(frames), self.num_codebooks, dtype=torch.long)
        # In float64, where rounding decides between two entries practically never: the same on every machine.
        for book, (projection, entries) in enumerate(zip(self.projections, self.codebooks, strict=True)):
            for start in range(0, len(frames), _FRAMES_AT_ONCE):
                part = slice(start, start + _FRAMES_AT_ONCE)
                projected = frames[part].double() @ projection.double()
                codes[part, book] = (projected @ entries.double().T).argmax(dim=1)
        return codes
