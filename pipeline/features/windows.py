"""Long recordings as windows: where the encoder looks, in frames of the feature extractor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """The part of a recording that the encoder sees at once.

    Attributes:
        start: its first frame in the recording.
        frames: its length.
        at: where its features begin in those of the row, which hold only what windows look at.
    """

    start: int
    frames: int
    at: int

    @property
    def stop(self) -> int:
        return self.start + self.frames


@dataclass(frozen=True)
class WindowPlan:
    """How recordings are cut.

    Attributes:
        frames: most frames of a window.
        overlap: fewest frames that neighbouring windows of one segment share.
        align: windows start at multiples of this: the encoder frames in one frame after the adapter.
    """

    frames: int
    overlap: int
    align: int = 1

    @property
    def advance(self) -> int:
        """Most frames from the start of a window to that of the next; none are cut unless it is positive."""
        return self.frames // self.align * self.align - self._overlap

    @property
    def _overlap(self) -> int:
        return -(-self.overlap // self.align) * self.align

    def cut(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(start, stop) of the windows over the frames [start, stop): as few as it takes, nearly equal.

        `start` is a multiple of `align`, and `overlap` at most half of `frames`.
        """
        length = stop - start
        if length <= self.frames:
            return [(start, stop)]
        from w2vbert.arrays import round_up  # late: `--help` reads this file, and w2vbert brings torch

        overlap = self._overlap
        count = -(-(length - overlap) // self.advance)
        steps = [round_up(-(-(length - overlap) * n // count), self.align) for n in range(1, count)]
        firsts = [start, *(start + step for step in steps)]
        stops = [*(first + overlap for first in firsts[1:]), stop]
        return list(zip(firsts, stops, strict=True))

    def over(self, segments: Iterable[tuple[int, int]]) -> list[Window]:
        """The windows over segments of a recording whose features are kept, and nothing between them."""
        windows = []
        kept = 0
        for start, stop in segments:
            windows += [
                Window(first, last - first, kept + first - start) for first, last in self.cut(start, stop)
            ]
            kept += stop - start
        return windows
