"""What a model hears, as pictures: a spectrogram with its masks, and who speaks when."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.metrics.rttm import Segment
from w2vbert.arrays import runs

_RANGE = (-2.0, 3.0)  # of normalised log-mel energies; what lies outside is drawn as the ends
# Colours from quiet to loud, (r, g, b): dark violet to light yellow, of equal steps in lightness.
_STOPS = (
    (12, 7, 35),
    (60, 15, 112),
    (127, 36, 129),
    (194, 59, 117),
    (245, 105, 92),
    (254, 170, 117),
    (252, 235, 180),
)


@dataclass(frozen=True)
class MaskedExample:
    """A clip as the model was shown it.

    Attributes:
        features: (frames, width) as of a `Batch`: frames of several stacked log-mel vectors.
        mask: (frames,) true where the mask embedding took the frame's place.
        num_mel_bins: of one vector.
    """

    clip_id: str
    features: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    num_mel_bins: int = 80


@dataclass(frozen=True)
class Bar:
    """A stretch of time: its left edge and width, in percent of the picture's."""

    left: float
    width: float


@dataclass(frozen=True)
class Spectrogram:
    """`source` is the picture as a data URI; `bars` are the masks."""

    clip_id: str
    source: str
    bars: list[Bar]
    share: float
    seconds: float


@dataclass(frozen=True)
class Track:
    """One speaker's speech, or where output and reference differ."""

    name: str
    kind: str  # "reference", "output" or "differences"
    bars: list[Bar]


def spectrogram(example: MaskedExample, frame_s: float) -> Spectrogram:
    """The clip's log-mel energies over time, low ones below, with its masks."""
    frames = len(example.features)
    mel = example.features.reshape(-1, example.num_mel_bins).T[::-1]
    low, high = _RANGE
    levels = ((mel - low) / (high - low)).clip(0, 1) * 255
    return Spectrogram(
        example.clip_id,
        f"data:image/png;base64,{base64.b64encode(_png(levels.round().astype(np.uint8))).decode()}",
        _bars(example.mask),
        float(example.mask.mean()),
        frames * frame_s,
    )


def timeline(reference: Sequence[Segment], output: Sequence[Segment], seconds: float) -> list[Track]:
    """Tracks of the speakers, and of where the two differ.

    Speakers of the output stand for those of the reference with whom they share the most time.
    """
    from scipy.optimize import linear_sum_assignment

    step = min(0.02, seconds / 100)
    true, found = (_grid(segments, round(seconds / step), step) for segments in (reference, output))
    shared = np.array([[(a & b).sum() for b in found.values()] for a in true.values()]).reshape(
        len(true), len(found)
    )
    rows, columns = linear_sum_assignment(shared, maximize=True)
    partner = {
        list(found)[column]: list(true)[row]
        for row, column in zip(rows, columns, strict=True)
        if shared[row, column]
    }
    differs = np.zeros(round(seconds / step), bool)
    for speaker, said in true.items():
        mine = next((found[name] for name, its in partner.items() if its == speaker), np.zeros_like(said))
        differs |= said != mine
    for name in found.keys() - partner.keys():
        differs |= found[name]
    names = {speaker: str(number) for number, speaker in enumerate(true, 1)}
    tracks = [Track(names[speaker], "reference", _bars(said)) for speaker, said in true.items()]
    told = sorted((names.get(partner.get(name, ""), "?"), name) for name in found)
    tracks += [Track(number, "output", _bars(found[name])) for number, name in told]
    return [*tracks, Track("", "differences", _bars(differs))]


def _grid(segments: Sequence[Segment], steps: int, step: float) -> dict[str, npt.NDArray[np.bool_]]:
    """When each speaker speaks: (steps,) each."""
    speakers: dict[str, npt.NDArray[np.bool_]] = {}
    for segment in segments:
        active = speakers.setdefault(segment.speaker, np.zeros(steps, bool))
        active[round(segment.start_s / step) : round(segment.end_s / step)] = True
    return dict(sorted(speakers.items()))


def _bars(flags: npt.NDArray[np.bool_]) -> list[Bar]:
    scale = 100 / max(len(flags), 1)
    return [
        Bar(round(start * scale, 3), round((stop - start) * scale, 3))
        for start, stop in zip(*runs(flags), strict=True)
    ]


def _png(levels: npt.NDArray[np.uint8]) -> bytes:
    """A picture of 256 colours: (height, width). Source: PNG (ISO/IEC 15948), sections 5 and 11."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = levels.shape
    places = np.linspace(0, len(_STOPS) - 1, 256)
    palette = np.stack(
        [np.interp(places, range(len(_STOPS)), channel) for channel in zip(*_STOPS, strict=True)], axis=1
    )
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = levels
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", palette.round().astype(np.uint8).tobytes()),
            chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
            chunk(b"IEND", b""),
        )
    )
