"""Validation clips with what they are and what the model says, and where the two differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.rttm import Segment
from pipeline.metrics.words import Piece, differences
from pipeline.training.report.page.charts import Chart, histogram
from pipeline.training.report.page.pictures import Track, timeline
from pipeline.training.report.scores import MOST_VOICES, Scored

_NUMBER = 10  # examples of a task
_CONFUSIONS = 12


@dataclass(frozen=True)
class TextExample:
    clip_id: str
    loss: float | None
    pieces: list[Piece]


@dataclass(frozen=True)
class TurnsExample:
    clip_id: str
    loss: float | None
    seconds: float
    tracks: list[Track]


@dataclass(frozen=True)
class Confusion:
    """Clips with one label that were given another."""

    reference: str
    output: str
    clips: int
    example: str


@dataclass(frozen=True)
class Examples:
    """All of a page; what a run has no task for is empty."""

    texts: list[TextExample]
    turns: list[TurnsExample]
    confusions: list[Confusion]
    voices: list[Chart]

    @classmethod
    def of(cls, clips: Mapping[str, Sequence[Scored]]) -> Examples:
        """Of validation clips, by task."""
        return cls(
            [
                TextExample(
                    clip.clip_id, clip.loss, differences(clip.reference, clip.values.get("text") or "")
                )
                for clip in _chosen(clips.get("transcribe", ()))
            ],
            [
                TurnsExample(
                    clip.clip_id,
                    clip.loss,
                    clip.seconds,
                    timeline(clip.reference, _segments(clip), clip.seconds),
                )
                for clip in _chosen(clips.get("diarize", ()))
            ],
            _confusions(clips.get("classify", ())),
            _voices(clips.get("embed", ())),
        )


def _chosen(clips: Sequence[Scored]) -> list[Scored]:
    """Evenly from those with the lowest loss to those with the highest."""
    ordered = sorted(clips, key=lambda clip: (clip.loss is None, clip.loss or 0.0, clip.clip_id))
    places = np.linspace(0, len(ordered) - 1, min(_NUMBER, len(ordered))).round().astype(int)
    return [ordered[place] for place in places]


def _segments(clip: Scored) -> list[Segment]:
    return [Segment(**segment) for segment in clip.values.get("segments", ())]


def _confusions(clips: Sequence[Scored]) -> list[Confusion]:
    """The most frequent ones first."""
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for clip in clips:
        pair = clip.reference, clip.values.get("label") or "nothing"
        if pair[0] != pair[1]:
            counts[pair] += 1
            first.setdefault(pair, clip.clip_id)
    return [Confusion(*pair, count, first[pair]) for pair, count in counts.most_common(_CONFUSIONS)]


def _voices(clips: Sequence[Scored]) -> list[Chart]:
    """How alike x-vectors of one voice are, and of two."""
    embedded = [clip for clip in clips if "embedding" in clip.values][:MOST_VOICES]
    if len(embedded) < 2:
        return []
    vectors = np.stack([clip.values["embedding"] for clip in embedded])
    speakers = np.array([clip.reference for clip in embedded])
    one, other = np.triu_indices(len(embedded), 1)
    same, cosines = speakers[one] == speakers[other], (vectors @ vectors.T)[one, other]
    groups = {"one voice": cosines[same], "two voices": cosines[~same]}
    return [histogram("Pairs of clips", groups, "cosine of the x-vectors")]
