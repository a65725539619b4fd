"""Frame probabilities to speech: against a reference that walks frame by frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.metrics.rttm import Segment
from pipeline.tasks.diarization.binarise import MAX_SPEAKERS, activity, binarise, segments
from pipeline.tasks.diarization.options import DiarizationOptions

FRAME_S = 0.02

probabilities_of_clips = st.tuples(st.integers(0, 40), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0]))
)


@st.composite
def options(draw: st.DrawFn) -> DiarizationOptions:
    onset = draw(st.sampled_from([0.4, 0.5, 0.65]))
    offset = draw(st.sampled_from([0.25, 0.4, onset]))
    on, off = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    return DiarizationOptions(
        onset=onset, offset=min(onset, offset), min_on_s=on * FRAME_S, min_off_s=off * FRAME_S
    )


def runs(row: list[bool]) -> list[tuple[bool, int, int]]:
    found: list[tuple[bool, int, int]] = []
    for i, value in enumerate(row):
        if found and found[-1][0] == value:
            found[-1] = (value, found[-1][1], i + 1)
        else:
            found.append((value, i, i + 1))
    return found


def binarise_slowly(
    probabilities: npt.NDArray[np.float32], options: DiarizationOptions
) -> npt.NDArray[np.bool_]:
    active = np.zeros(probabilities.shape, bool)
    for speaker in range(probabilities.shape[1]):
        speaks, row = False, []
        for probability in probabilities[:, speaker]:
            speaks = bool(probability > (options.offset if speaks else options.onset))
            row.append(speaks)
        found = runs(row)
        for value, start, stop in found[1:-1]:
            if not value and stop - start < round(options.min_off_s / FRAME_S):
                row[start:stop] = [True] * (stop - start)
        for value, start, stop in runs(row):
            if value and stop - start < round(options.min_on_s / FRAME_S):
                row[start:stop] = [False] * (stop - start)
        active[:, speaker] = row
    return active


@given(probabilities_of_clips, options())
def test_equals_walking_frame_by_frame(
    probabilities: npt.NDArray[np.float32], options: DiarizationOptions
) -> None:
    np.testing.assert_array_equal(
        binarise(probabilities, options, FRAME_S), binarise_slowly(probabilities, options)
    )


@given(probabilities_of_clips)
def test_as_told_nothing_it_is_the_published_threshold(probabilities: npt.NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(binarise(probabilities, DiarizationOptions(), FRAME_S), probabilities > 0.5)


def test_a_segment_of_exactly_the_minimum_is_kept() -> None:
    """0.14 s are 7 frames of 0.02 s, though as floats 0.14 / 0.02 is more than 7."""
    probabilities = np.zeros((20, 1), np.float32)
    probabilities[5:12] = 1
    assert binarise(probabilities, DiarizationOptions(min_on_s=0.14), FRAME_S).sum() == 7
    assert binarise(probabilities, DiarizationOptions(min_on_s=0.15), FRAME_S).sum() == 0


def test_a_pause_at_either_end_is_no_pause() -> None:
    probabilities = np.array([[0, 1, 0, 0, 1, 0, 0]], np.float32).T
    filled = binarise(probabilities, DiarizationOptions(min_off_s=0.2), FRAME_S)
    assert filled[:, 0].tolist() == [False, True, True, True, True, False, False]


def test_segments_in_time_order_end_with_the_clip() -> None:
    active = np.array([[0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]], bool).T
    found = segments(active, 0.02, duration_s=0.1)
    assert [segment.speaker for segment in found] == ["speaker_1", "speaker_0", "speaker_0"]
    np.testing.assert_allclose(
        [(segment.start_s, segment.end_s) for segment in found], [(0, 0.08), (0.02, 0.06), (0.08, 0.1)]
    )
    assert found[2] == Segment("speaker_0", 0.08, 0.1)
    assert segments(np.zeros((5, 2), bool), 0.02, 0.1) == []
    assert segments(np.zeros((0, 2), bool), 0.02, 0.0) == []


@given(st.tuples(st.integers(0, 30), st.integers(1, 8)).flatmap(lambda shape: arrays(bool, shape)))
def test_segments_and_activity_say_the_same(active: npt.NDArray[np.bool_]) -> None:
    frames, speakers = active.shape
    from_segments = np.zeros_like(active)
    for speaker, start_s, end_s in segments(active, FRAME_S, frames * FRAME_S):
        from_segments[round(start_s / FRAME_S) : round(end_s / FRAME_S), int(speaker[-1])] = True
    np.testing.assert_array_equal(from_segments, active)
    bits = activity(active)
    assert bits.dtype == np.uint8
    np.testing.assert_array_equal(bits[:, None] >> np.arange(speakers) & 1, active)


def test_more_speakers_than_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="9 speakers do not fit the 8 bits"):
        activity(np.zeros((3, MAX_SPEAKERS + 1), bool))
