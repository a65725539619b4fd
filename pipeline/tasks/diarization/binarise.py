"""Who speaks when: from frame probabilities to the speech of each speaker, in frames and in seconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.metrics.rttm import Segment
from pipeline.tasks.diarization.options import DiarizationOptions

MAX_SPEAKERS = 8  # the bits of `frame_activity`

Probabilities = npt.NDArray[np.float32]
Activity = npt.NDArray[np.bool_]


def binarise(probabilities: Probabilities, options: DiarizationOptions, frame_s: float) -> Activity:
    """Which speakers speak in which frames; several may at once.

    A speaker begins where the probability is above `onset` and goes on until it is no longer above `offset`.
    Then pauses shorter than `min_off_s` are filled, then segments shorter than `min_on_s` dropped. With both
    thresholds at 0.5 and no minimum this is `probabilities > 0.5`.

    Args:
        probabilities: (frames, speakers).
        frame_s: seconds of a frame.

    Returns:
        (frames, speakers).
    """
    begins, ends = probabilities > options.onset, probabilities <= options.offset
    # The last frame that decided: between the thresholds the state before goes on.
    frames = np.arange(len(probabilities))[:, None]
    decided = np.maximum.accumulate(np.where(begins | ends, frames, 0), axis=0)
    active: Activity = np.take_along_axis(begins, decided, axis=0)
    shortest_on, shortest_off = (_frames_of(s, frame_s) for s in (options.min_on_s, options.min_off_s))
    if shortest_on <= 1 and shortest_off <= 1:
        return active
    starts, stops, row = _runs(active)
    same_speaker = starts[1:] // row == stops[:-1] // row
    filled = same_speaker & (starts[1:] - stops[:-1] < shortest_off)
    starts, stops = (
        starts[np.append(True, ~filled)[: len(starts)]],
        stops[np.append(~filled, True)[: len(stops)]],
    )
    long_enough = stops - starts >= shortest_on
    steps = np.zeros(row * active.shape[1], np.int8)
    steps[starts[long_enough]] = 1
    steps[stops[long_enough]] = -1
    return steps.cumsum(dtype=np.int8).reshape(-1, row)[:, :-1].T.astype(bool)


def segments(active: Activity, frame_s: float, duration_s: float) -> list[Segment]:
    """Speech of `speaker_0`, `speaker_1`, … in time order, none of it after `duration_s`.

    Args:
        active: (frames, speakers).
    """
    starts, stops, row = _runs(active)
    found = (
        Segment(f"speaker_{start // row}", start % row * frame_s, min(stop % row * frame_s, duration_s))
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    )
    return sorted(
        (segment for segment in found if segment.start_s < segment.end_s),
        key=lambda segment: (segment.start_s, segment.end_s, segment.speaker),
    )


def activity(active: Activity) -> npt.NDArray[np.uint8]:
    """(frames,) with bit i set where speaker i speaks; of at most `MAX_SPEAKERS` speakers."""
    if active.shape[1] > MAX_SPEAKERS:
        raise ValueError(f"{active.shape[1]} speakers do not fit the {MAX_SPEAKERS} bits of a frame")
    return np.packbits(active, axis=1, bitorder="little")[:, 0]


def _frames_of(seconds: float, frame_s: float) -> int:
    """Fewest frames that are no shorter; 0.14 s are 7 frames of 0.02 s, whatever floats make of it."""
    return int(np.ceil(seconds / frame_s - 1e-6))


def _runs(active: Activity) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """First and past-the-last frames of all speech, speaker by speaker, with all speakers laid end to end.

    Returns:
        starts, stops: (segments,); frame f of speaker i is i × row + f.
        row: frames of one speaker, and one silent frame that keeps the speakers apart.
    """
    from w2vbert.arrays import runs

    frames, speakers = active.shape
    laid = np.zeros((speakers, frames + 1), bool)
    laid[:, :-1] = active.T
    return *runs(laid.ravel()), frames + 1
