"""Packs of windows under a token budget."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.annotate.packs import WindowFeatures, packs
from pipeline.features.windows import Window
from pipeline.tasks.base import ClipFrames, PackedWindow


def windows_of(clips: list[list[int]]) -> list[WindowFeatures]:
    """A window of each of these lengths, clip by clip, one after another."""
    found = []
    for row, lengths in enumerate(clips):
        starts = np.cumsum([0, *lengths]).tolist()
        windows = tuple(Window(start, length, start) for start, length in zip(starts, lengths, strict=False))
        clip = ClipFrames(starts[-1], starts[-1], windows, starts[-1] * 0.02)
        found += [
            WindowFeatures(row, PackedWindow(clip, window), np.zeros((window.frames, 160), np.float16))
            for window in windows
        ]
    return found


def lengths(clips: list[list[int]], budget: int) -> list[list[int]]:
    return [[len(window.features) for window in pack] for pack in packs(windows_of(clips), budget)]


@pytest.mark.parametrize(
    ("clips", "budget", "expected"),
    [
        ([], 10, []),
        ([[5], [5]], 10, [[5, 5]]),
        ([[5], [6]], 10, [[5], [6]]),
        ([[9], [1], [2], [3]], 6, [[1, 2, 3], [9]]),
        ([[30], [20]], 10, [[20], [30]]),
        ([[8, 3], [4], [1]], 12, [[1, 4], [8, 3]]),  # the windows of a clip stay together, in order
    ],
)
def test_packs(clips: list[list[int]], budget: int, expected: list[list[int]]) -> None:
    assert lengths(clips, budget) == expected


@given(st.lists(st.integers(1, 60), max_size=30), st.integers(1, 100))
def test_every_clip_once_in_order_of_length_and_under_the_budget(frames: list[int], budget: int) -> None:
    found = lengths([[count] for count in frames], budget)
    assert [count for pack in found for count in pack] == sorted(frames)
    assert all(len(pack) == 1 or sum(pack) <= budget for pack in found)
    # No pack could have taken the next one's first clip.
    assert all(sum(pack) + following[0] > budget for pack, following in pairwise(found))


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=5), max_size=12), st.integers(1, 100))
def test_the_windows_of_a_clip_come_in_their_order(clips: list[list[int]], budget: int) -> None:
    come: dict[int, list[int]] = {}
    for pack in packs(windows_of(clips), budget):
        assert len(pack) == 1 or sum(len(window.features) for window in pack) <= budget
        for window in pack:
            come.setdefault(window.row, []).append(window.packed.window.start)
    assert come == {row: np.cumsum([0, *found[:-1]]).tolist() for row, found in enumerate(clips)}
