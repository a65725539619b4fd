"""Words across the seams of windows: neither lost nor doubled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.features.windows import WindowPlan
from pipeline.tasks.transcribe import best_seam

BLANK = 0


def tokens(path: np.ndarray) -> list[int]:
    """What a path emits: runs of equal ids that are not blank."""
    changed = np.flatnonzero(np.diff(path, prepend=-1))
    return [int(token) for token in path[changed] if token != BLANK]


def stitched(paths: list[tuple[int, np.ndarray]], frames: int) -> np.ndarray:
    whole = np.full(frames, BLANK)
    end = 0
    for start, path in paths:
        first = start + (best_seam(whole[start:end], path[: end - start], enough=10) if start < end else 0)
        whole[first : start + len(path)] = path[first - start :]
        end = start + len(path)
    return whole


@st.composite
def spoken(draw: st.DrawFn) -> tuple[list[tuple[int, int]], int]:
    """Tokens with the frames that emit them, at least eight frames apart, and the frames of the recording."""
    places, at = [], draw(st.integers(0, 8))
    for _ in range(draw(st.integers(0, 60))):
        places.append((at, draw(st.integers(1, 5))))
        at += draw(st.integers(8, 40))
    return places, at + draw(st.integers(1, 30))


def path_of(places: list[tuple[int, int]], start: int, stop: int, shifts: list[int]) -> np.ndarray:
    """A window's path: it emits each token within two frames of its place, as encoders do at their edges."""
    path = np.full(stop - start, BLANK)
    for (place, token), shift in zip(places, shifts, strict=True):
        at = place + shift - start
        if 0 <= at < len(path):
            path[at] = token
    return path


@pytest.mark.slow
@settings(max_examples=100)
@given(spoken(), st.integers(100, 300), st.data())
def test_tokens_of_the_recording_come_out_once(
    said: tuple[list[tuple[int, int]], int], window: int, data: st.DataObject
) -> None:
    places, frames = said
    cuts = WindowPlan(window, 50).cut(0, frames)
    paths = []
    for start, stop in cuts:
        shifts = [data.draw(st.integers(-2, 2), label="shift") for _ in places]
        # The recording's edges are edges for every window.
        shifts = [min(max(s, -p), frames - 1 - p) for s, (p, _) in zip(shifts, places, strict=True)]
        paths.append((start, path_of(places, start, stop, shifts)))
    assert tokens(stitched(paths, frames)) == [token for _, token in places]


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=60))
def test_a_seam_lies_inside_the_overlap(before: list[int], after: list[int]) -> None:
    n = min(len(before), len(after))
    seam = best_seam(np.array(before[:n], int), np.array(after[:n], int), enough=10)
    assert 0 <= seam <= n


def test_windows_that_agree_meet_in_the_middle() -> None:
    path = np.array([0] * 20 + [1, 2, 3] * 20 + [0] * 20)
    assert best_seam(path, path, enough=10) == 50


def test_the_seam_keeps_away_from_where_windows_disagree() -> None:
    before, after = np.zeros(100, int), np.zeros(100, int)
    before[49], after[51] = 7, 7  # one token, heard two frames apart, in the very middle
    seam = best_seam(before, after, enough=10)
    assert tokens(np.concatenate([before[:seam], after[seam:]])) == [7]
    assert abs(seam - 50) <= 13
