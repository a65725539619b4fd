"""Packs: windows of many clips that the encoder runs over at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from pipeline.tasks.base import PackedWindow


@dataclass(frozen=True)
class WindowFeatures:
    """Features of one window of the clip in a row of the table: (frames, width), a view of the row's."""

    row: int
    packed: PackedWindow
    features: npt.NDArray[Any]


def packs(windows: Iterable[WindowFeatures], budget: int) -> Iterator[list[WindowFeatures]]:
    """Windows of similar length together, at most `budget` frames a pack; a longer one goes alone.

    The windows of one clip stay in their order, so that each can be summed up when it comes.
    """
    longest: dict[int, int] = {}
    held = list(windows)
    for window in held:
        longest[window.row] = max(longest.get(window.row, 0), len(window.features))
    pack: list[WindowFeatures] = []
    frames = 0
    # Sorting is stable: in a row, windows stay in order.
    for window in sorted(held, key=lambda window: (longest[window.row], window.row)):
        if pack and frames + len(window.features) > budget:
            yield pack
            pack, frames = [], 0
        pack.append(window)
        frames += len(window.features)
    if pack:
        yield pack
