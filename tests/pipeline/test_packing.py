"""Packs of clips under a token budget."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.annotate import _Clip, pack_by_length


def lengths(frames: list[int], budget: int) -> list[list[int]]:
    clips = [_Clip(row, np.zeros((count, 160), np.float16), count) for row, count in enumerate(frames)]
    return [[len(clip.features) for clip in pack] for pack in pack_by_length(clips, budget)]


@pytest.mark.parametrize(
    ("frames", "budget", "packs"),
    [
        ([], 10, []),
        ([5, 5], 10, [[5, 5]]),
        ([5, 6], 10, [[5], [6]]),
        ([9, 1, 2, 3], 6, [[1, 2, 3], [9]]),
        ([30, 20], 10, [[20], [30]]),
    ],
)
def test_packs(frames: list[int], budget: int, packs: list[list[int]]) -> None:
    assert lengths(frames, budget) == packs


@given(st.lists(st.integers(1, 60), max_size=30), st.integers(1, 100))
def test_every_clip_once_in_order_of_length_and_under_the_budget(frames: list[int], budget: int) -> None:
    packs = lengths(frames, budget)
    assert [count for pack in packs for count in pack] == sorted(frames)
    assert all(len(pack) == 1 or sum(pack) <= budget for pack in packs)
    # No pack could have taken the next one's first clip.
    assert all(sum(pack) + following[0] > budget for pack, following in pairwise(packs))
