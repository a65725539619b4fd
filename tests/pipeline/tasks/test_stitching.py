"""Speakers across windows: whatever order each window's slots are in, the recording has one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.features.windows import WindowPlan
from pipeline.tasks.diarization.stitching import SpeakerStitcher

Floats = npt.NDArray[np.float32]
seeds = st.integers(0, 2**32 - 1)


@st.composite
def plans(draw: st.DrawFn) -> WindowPlan:
    frames = draw(st.integers(60, 200))
    return WindowPlan(frames, draw(st.integers(20, frames // 2)))


def random_turns(random: np.random.Generator, frames: int, speakers: int) -> Floats:
    """Speech that comes and goes every 15 frames or so, with overlap; probabilities near 0 and 1."""
    changes = random.random((frames, speakers)) < 1 / 15
    active = np.cumsum(changes, axis=0) + random.integers(0, 2, speakers)
    return (0.1 + 0.8 * (active % 2) + random.uniform(-0.1, 0.1, active.shape)).astype(np.float32)


def stitch(
    whole: Floats,
    windows: Sequence[tuple[int, int]],
    orders: Sequence[npt.NDArray[np.intp]],
    voices: Floats | None = None,
    noise: float = 0.0,
    random: np.random.Generator | None = None,
) -> Floats:
    stitcher = SpeakerStitcher(whole.shape[1], enough=25)
    for (start, stop), order in zip(windows, orders, strict=True):
        heard = whole[start:stop, order]
        if random is not None:
            heard = (heard + random.uniform(-noise, noise, heard.shape)).astype(np.float32)
        embeddings = None if voices is None else voices[order]
        stitcher.add(start, heard, embeddings)
    return stitcher.finish(len(whole))


@settings(max_examples=200)
@given(plans(), st.integers(30, 900), st.integers(1, 5), seeds, st.booleans(), st.booleans())
def test_any_order_of_slots_gives_the_recording_in_the_order_of_its_first_window(
    plan: WindowPlan, frames: int, speakers: int, seed: int, with_voices: bool, noisy: bool
) -> None:
    random = np.random.default_rng(seed)
    whole = random_turns(random, frames, speakers)
    windows = plan.cut(0, frames)
    for (_, stop), (start, _) in pairwise(windows):
        common = whole[start:stop] > 0.5
        apart = (common[:, :, None] != common[:, None, :]).sum(axis=0) + 99 * np.eye(speakers)
        assume(apart.min() >= 5)  # the overlap tells any two speakers apart
    orders = [random.permutation(speakers) for _ in windows]
    voices = random.standard_normal((speakers, 16)).astype(np.float32) if with_voices else None
    noise = 0.05 if noisy else 0.0
    stitched = stitch(whole, windows, orders, voices, noise, random)
    assert stitched.shape == whole.shape
    assert stitched.dtype == np.float32
    np.testing.assert_allclose(stitched, whole[:, orders[0]], atol=noise + 1e-6)


@given(plans(), st.integers(300, 900), st.integers(2, 5), seeds)
def test_over_silent_overlaps_voices_carry_on(
    plan: WindowPlan, frames: int, speakers: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    whole = random_turns(random, frames, speakers)
    windows = plan.cut(0, frames)
    for (_, stop), (start, _) in pairwise(windows):
        whole[start:stop] = 0
    orders = [random.permutation(speakers) for _ in windows]
    voices = np.eye(speakers, 16, dtype=np.float32) + 0.1 * random.standard_normal((speakers, 16))
    np.testing.assert_array_equal(stitch(whole, windows, orders, voices), whole[:, orders[0]])


@given(plans(), st.integers(300, 900), st.integers(2, 5), seeds)
def test_without_evidence_slots_stay_in_order(
    plan: WindowPlan, frames: int, speakers: int, seed: int
) -> None:
    whole = np.random.default_rng(seed).uniform(0, 0.5, (frames, speakers)).astype(np.float32)
    windows = plan.cut(0, frames)
    orders = [np.arange(speakers)] * len(windows)
    np.testing.assert_array_equal(stitch(whole, windows, orders), whole)


def test_what_no_window_looked_at_is_silent_and_voices_bridge_the_gap() -> None:
    voices = np.eye(2, dtype=np.float32)
    stitcher = SpeakerStitcher(2, enough=25)
    stitcher.add(3, np.array([[0.9, 0.2]] * 4, np.float32), voices)
    stitcher.add(10, np.array([[0.3, 0.8]] * 2, np.float32), voices[::-1])
    expected = np.zeros((14, 2), np.float32)
    expected[3:7] = [0.9, 0.2]
    expected[10:12] = [0.8, 0.3]
    np.testing.assert_array_equal(stitcher.finish(14), expected)


def test_a_recording_without_windows_is_silent() -> None:
    np.testing.assert_array_equal(SpeakerStitcher(3, enough=25).finish(4), np.zeros((4, 3)))


@pytest.mark.parametrize("absent", [None, np.full(4, np.nan, np.float32), np.zeros(4, np.float32)])
def test_speakers_without_a_vector_take_the_slots_that_are_left(absent: Floats | None) -> None:
    """Slots 0 and 2 change places, known by their voices; slot 1 never speaks."""
    one, two = np.eye(4, dtype=np.float32)[:2]
    stitcher = SpeakerStitcher(3, enough=25)
    stitcher.add(0, np.full((10, 3), 0.1, np.float32), [one, absent, two])
    stitcher.add(10, np.tile(np.array([0.6, 0.7, 0.8], np.float32), (10, 1)), [two, absent, one])
    np.testing.assert_array_equal(stitcher.finish(20)[10], np.array([0.8, 0.7, 0.6], np.float32))


def test_a_speaker_in_the_overlap_is_known_by_it_and_the_others_by_voice() -> None:
    """Speaker 0 alone speaks in the overlap, where it sounds like speaker 1; 1 and 2 are known by voice."""
    voices = np.eye(3, dtype=np.float32)
    first = np.zeros((60, 3), np.float32)
    first[30:, 0] = 1
    second = np.zeros((60, 3), np.float32)
    second[:30, 2] = 1
    second[40:, 0] = 0.6
    stitcher = SpeakerStitcher(3, enough=25)
    stitcher.add(0, first, voices)
    stitcher.add(30, second, [voices[2], voices[1] * 0.5, voices[1]])
    np.testing.assert_array_equal(
        stitcher.finish(90)[[50, 80]], np.array([[1, 0, 0], [0, 0, 0.6]], np.float32)
    )


def test_the_seam_is_the_middle_of_the_overlap() -> None:
    stitcher = SpeakerStitcher(1, enough=25)
    for start, value in ((0, 0.6), (6, 0.7), (12, 0.8)):
        stitcher.add(start, np.full((10, 1), value, np.float32))
    expected = np.repeat(np.array([0.6, 0.7, 0.8], np.float32), (8, 6, 8))
    np.testing.assert_array_equal(stitcher.finish(22)[:, 0], expected)
