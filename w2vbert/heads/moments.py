"""Mean and deviation of frames: of many clips at once, and of a clip that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def segment_mean_std(frames: Tensor, spans: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over each segment of packed frames, by a fixed number of operations.

    Args:
        frames: (total, width).
        spans: first frame of each segment, and one past its last.

    Returns:
        (len(spans), width) fp32 each; the deviation has Bessel's correction, and of one frame it is NaN.
        Where it is zero, so is its gradient.
    """
    counts = torch.tensor([stop - start for start, stop in spans], device=frames.device)
    starts = torch.tensor([start for start, _ in spans], device=frames.device)
    total = sum(stop - start for start, stop in spans)
    rows = torch.arange(len(spans), device=frames.device).repeat_interleave(counts, output_size=total)
    firsts = (counts.cumsum(0) - counts)[rows]
    values = frames[torch.arange(total, device=frames.device) - firsts + starts[rows]].float()
    sums = values.new_zeros(len(spans), values.shape[1])
    means = sums.index_add(0, rows, values) / counts[:, None]
    squares = sums.index_add(0, rows, (values - means[rows]).square())
    variances = squares / (counts - 1)[:, None]
    varies = variances > 0  # the slope of a square root at zero is infinite
    return means, variances.where(varies, 1.0).sqrt().where(varies, variances)


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
