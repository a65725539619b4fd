"""Mean and deviation of frames that come in pieces."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Running mean and deviation over frames, without keeping them.

    Each piece is summed up by itself and merged in (Chan, Golub & LeVeque 1983, "Algorithms for computing the
    sample variance"), so nothing large is ever subtracted from something large.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self._squares: Tensor = torch.zeros(())

    def add(self, frames: Tensor) -> None:
        """Take the next frames: (n, width)."""
        new = len(frames)
        if new == 0:
            return
        frames = frames.float()
        mean = frames.mean(dim=0)
        squares = (frames - mean).square().sum(dim=0)
        total = self.count + new
        if self.count:
            shift = mean - self.mean
            squares = self._squares + squares + shift.square() * (self.count * new / total)
            mean = self.mean + shift * (new / total)
        self.count, self.mean, self._squares = total, mean, squares

    def deviation(self) -> Tensor:
        """Standard deviation over at least two frames, with Bessel's correction: (width,) fp32."""
        return (self._squares / (self.count - 1)).sqrt()
