"""Voice-activity detection: which segments of a recording are worth annotating."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from pipeline.audio.resampling import SAMPLE_RATE
from pipeline.audio.stream import Samples
from pipeline.errors import JobError
from w2vbert.arrays import round_up, runs

_FRAME = SAMPLE_RATE // 100  # samples: 10 ms
_SILENT_DB = -90.0  # one step of 16-bit PCM
_FLOOR_PERCENTILE, _LEVEL_PERCENTILE = 10, 99
_STEADY_DB = 9.0  # less between floor and level: nothing stands out
_MOST_ABOVE_FLOOR_DB = 12.0
_CONTEXT = 5  # frames on each side that a frame's decision looks at
# Seconds.
_SHORTEST_PAUSE, _SHORTEST_SPEECH, _PADDING = 0.5, 0.1, 0.2

Span = tuple[float, float]  # start and stop in seconds


class Detector(Protocol):
    """Finds speech in one recording; a class of your own (`--vad module:Class`) needs these two methods."""

    def add(self, samples: Samples) -> None:
        """Take the next samples: (n,) float32 in [-1, 1], one channel at 16 kHz, any n."""

    def finish(self) -> Iterable[Span]:
        """(start, stop) of the speech in all samples taken, in seconds."""


class EnergyDetector:
    """Speech is what stands out of the recording's own noise floor.

    The energy of each 10 ms frame, its mean taken off, is compared with a threshold between the noise floor
    (10th percentile of all frames in dB) and the level (99th percentile): a third of the way up, but at most
    12 dB above the floor. Where the two are less than 9 dB apart nothing stands out, and everything is kept:
    a detector in doubt costs time, one that is wrong costs words. Digital silence is never speech and has no
    part in the percentiles.

    A frame counts when most of those in the 110 ms around it do, so that clicks do not. Pauses shorter than
    0.5 s are kept, what then is shorter than 0.1 s is not, and 0.2 s are kept around the rest.

    The threshold follows Rabiner and Sambur, "An algorithm for determining the endpoints of isolated
    utterances" (1975): a share of the range between silence and peak, and at most four times the amplitude
    of silence. The majority over neighbouring frames is that of Kaldi's `compute-vad` (Povey et al., 2011).
    """

    def __init__(self) -> None:
        self._pending = np.empty(0, np.float32)
        # Half precision: 200 bytes for a second of audio are all that grows with the recording.
        self._energies: list[npt.NDArray[np.float16]] = []
        self._samples = 0

    def add(self, samples: Samples) -> None:
        self._samples += len(samples)
        samples = np.concatenate([self._pending, samples])
        whole = len(samples) // _FRAME * _FRAME
        self._pending = samples[whole:].copy()
        if whole:
            self._energies.append(_decibels(samples[:whole].reshape(-1, _FRAME)))

    def finish(self) -> list[Span]:
        if len(self._pending):
            self._energies.append(_decibels(self._pending[None]))
            self._pending = self._pending[:0]
        if not self._energies:
            return []
        energies = np.concatenate(self._energies).astype(np.float32)
        heard = energies > _SILENT_DB
        if not heard.any():
            return []
        floor, level = np.percentile(energies[heard], [_FLOOR_PERCENTILE, _LEVEL_PERCENTILE])
        if level - floor >= _STEADY_DB:
            heard &= energies > floor + min((level - floor) / 3, _MOST_ABOVE_FLOOR_DB)
        duration_s = self._samples / SAMPLE_RATE
        starts, stops = (frames.tolist() for frames in runs(_majority(heard)))
        speech = [(start / 100, stop / 100) for start, stop in zip(starts, stops, strict=True)]
        speech = [
            (max(0.0, start - _PADDING), min(stop + _PADDING, duration_s))
            for start, stop in merged(speech, _SHORTEST_PAUSE)
            if stop - start >= _SHORTEST_SPEECH
        ]
        return merged(speech)


def load_detector(name: str) -> type[Detector]:
    """The class that `--vad` names: 'energy', 'silero', or 'module:Class'.

    Raises:
        JobError: there is no such class, or it is no detector.
    """
    if name == "energy":
        return EnergyDetector
    if name == "silero":
        if find_spec("silero_vad") is None:
            raise JobError("--vad silero needs the package silero-vad: pip install 'w2vbert[vad]'.")
        from pipeline.audio.vad.silero import SileroDetector

        return SileroDetector
    module, _, attribute = name.partition(":")
    try:
        found: Any = getattr(import_module(module), attribute)
    except AttributeError:
        raise JobError(f"--vad {name}: the module {module} has no {attribute}.") from None
    except Exception as problem:  # importing runs the user's code
        raise JobError(
            f"--vad {name}: the module {module} cannot be imported ({type(problem).__name__}: {problem})."
        ) from problem
    if not inspect.isclass(found):
        raise JobError(f"--vad {name}: {attribute} is not a class.")
    for method in ("add", "finish"):
        if not callable(getattr(found, method, None)):
            raise JobError(
                f"--vad {name}: {attribute} has no method {method}; a detector has add(samples), which takes "
                "float32 samples at 16 kHz in blocks, and finish(), which gives (start, stop) in seconds."
            )
    try:
        inspect.signature(found).bind()
    except TypeError as problem:
        raise JobError(f"--vad {name}: {attribute} must be made without arguments ({problem}).") from None
    except ValueError:  # a class without a signature that Python can tell: making it will show
        pass
    return cast(type[Detector], found)


def speech_of(detector: Detector, duration_s: float) -> list[Span]:
    """What `detector` found, in order, without overlaps, inside the recording.

    Raises:
        ValueError: it gave something else than pairs of seconds.
    """
    speech = []
    for found in detector.finish():
        try:
            start, stop = (float(seconds) for seconds in found)
        except (TypeError, ValueError):
            raise ValueError(f"{found!r} is no (start, stop) in seconds") from None
        if not 0 <= stop - start < float("inf"):
            raise ValueError(f"there is no speech from {start:g} s to {stop:g} s")
        start, stop = max(start, 0.0), min(stop, duration_s)
        if start < stop:
            speech.append((start, stop))
    return merged(sorted(speech))


def kept_frames(
    speech: Iterable[Span], hop: int, *, frames: int, num_valid: int, align: int
) -> list[tuple[int, int]]:
    """Spans in seconds as (start, stop) in frames, rounded outward to multiples of `align`.

    Args:
        speech: in order, without overlaps.
        hop: samples from one frame to the next.
        frames, num_valid: of the recording; a segment holds at least one of the valid frames.
    """
    segments = []
    for start_s, stop_s in speech:
        start = min(int(start_s * SAMPLE_RATE) // hop, num_valid - 1) // align * align
        stop = round_up(round(stop_s * SAMPLE_RATE), hop * align) // hop
        segments.append((start, min(max(stop, start + align), frames)))
    return merged(segments)


def merged(segments: Sequence[tuple[Any, Any]], pause: float = 0) -> list[tuple[Any, Any]]:
    """Spans in order, those that overlap, touch or are less than `pause` apart made one."""
    result: list[tuple[Any, Any]] = []
    for start, stop in segments:
        if result and (start <= result[-1][1] or start - result[-1][1] < pause):
            result[-1] = (result[-1][0], max(result[-1][1], stop))
        else:
            result.append((start, stop))
    return result


def _decibels(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """(frames, samples) to the energies of frames, relative to full scale."""
    power = frames.var(axis=1, dtype=np.float64)
    decibels: npt.NDArray[np.float16] = (10 * np.log10(np.maximum(power, 1e-12))).astype(np.float16)
    return decibels


def _majority(heard: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """True where most of the frames around are; beyond the ends the frames at the ends go on."""
    padded = np.pad(heard.astype(np.int32), (_CONTEXT + 1, _CONTEXT), mode="edge")
    sums = np.cumsum(padded)
    width = 2 * _CONTEXT + 1
    result: npt.NDArray[np.bool_] = 2 * (sums[width:] - sums[:-width]) > width
    return result
