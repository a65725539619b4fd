"""Speakers across windows: which speaker slot of a window is which speaker of the recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.tasks.diarization.binarise import Probabilities

_SPEAKS = 0.5
ENOUGH_S = 0.5  # of speech in the overlap: it alone then decides
_KEEP_ORDER = 1e-9  # between equals, slots stay in order

Vector = npt.NDArray[np.floating]


class SpeakerStitcher:
    """Joins frame probabilities of windows, whose speaker slots are each in an order of their own.

    A window's slots go to those of the recording so that the sum of these costs is least (linear assignment):

        weight × disagreement + (1 - weight) × (1 - cosine) / 2

    Disagreement is the mean |p - q| over the frames of the overlap with the window before in which either of
    the two slots speaks, or over all of it where neither does. There are n such frames of speech, and
    weight = min(1, n / enough), or 1 without x-vectors. Cosine is that between the slot's x-vector and the
    mean of those that the recording's speaker had so far, 0 where either has none. Between equals, slots stay
    in order.

    Where two windows overlap, the first half of the overlap comes from the earlier one.

    Args:
        enough: frames of speech in the overlap that alone decide: `ENOUGH_S`.
    """

    def __init__(self, speakers: int, *, enough: int) -> None:
        self._speakers = speakers
        self._enough = enough
        # (first frame, probabilities), up to the last seam
        self._settled: list[tuple[int, Probabilities]] = []
        self._start = self._seam = 0  # of the last window: its first frame, and the first that counts
        self._last: Probabilities = np.zeros((0, speakers), np.float32)
        self._sums: npt.NDArray[np.float64] | None = None  # (speakers, width) of unit x-vectors

    def add(
        self,
        start: int,
        probabilities: Probabilities,
        embeddings: Sequence[Vector | None] | Vector | None = None,
    ) -> None:
        """The next window; each starts and ends after the one before.

        Args:
            start: its first frame in the recording.
            probabilities: (frames, speakers).
            embeddings: (speakers, width), the x-vector of each slot; None or NaN for one that does not speak.
        """
        before = self._last[start - self._start :][: len(probabilities)]
        vectors = None if embeddings is None else _unit_vectors(embeddings)
        slots = self._slots(before, probabilities[: len(before)], vectors)
        if vectors is not None:
            self._sums = vectors[slots] + (0 if self._sums is None else self._sums)
        self._settle(start + len(before) // 2)
        self._start, self._last = start, np.asarray(probabilities[:, slots], np.float32)

    def finish(self, frames: int) -> Probabilities:
        """(frames, speakers) of the whole recording; 0 where no window looked."""
        self._settle(frames)
        whole = np.zeros((frames, self._speakers), np.float32)
        for start, settled in self._settled:
            whole[start : start + len(settled)] = settled
        return whole

    def _settle(self, seam: int) -> None:
        """What the last window says up to the seam with the next one stands."""
        begin = self._seam - self._start
        self._settled.append((self._seam, self._last[begin : seam - self._start].copy()))
        self._seam = seam

    def _slots(
        self, before: Probabilities, now: Probabilities, vectors: npt.NDArray[np.float64] | None
    ) -> npt.NDArray[np.intp]:
        """(speakers,): the window's slot of each speaker of the recording.

        `before` and `now`, both (overlap, speakers), are what the two windows say of the same frames.
        """
        if not len(before) and (vectors is None or self._sums is None):  # a clip's first window
            return np.arange(self._speakers)
        from scipy.optimize import linear_sum_assignment  # late: short clips never come here

        speaks = (before > _SPEAKS)[:, :, None] | (now > _SPEAKS)[:, None, :]
        apart = np.abs(before[:, :, None] - now[:, None, :])
        frames = speaks.sum(axis=0)
        # Of two that are silent in the overlap, all of it counts: they agree.
        counted = speaks | (frames == 0)
        disagreement = np.sum(apart, axis=0, where=counted, dtype=np.float64) / np.maximum(counted.sum(0), 1)
        cost = disagreement
        if vectors is not None and self._sums is not None:
            cosine = _unit_vectors(self._sums) @ vectors.T
            weight = np.minimum(frames / self._enough, 1)
            cost = weight * disagreement + (1 - weight) * (1 - cosine) / 2
        moved = np.subtract.outer(np.arange(self._speakers), np.arange(self._speakers))
        cost = cost + _KEEP_ORDER * moved**2
        slots: npt.NDArray[np.intp] = linear_sum_assignment(cost)[1]
        return slots


def _unit_vectors(embeddings: Sequence[Vector | None] | Vector) -> npt.NDArray[np.float64]:
    """(speakers, width) of length 1; zeros for a speaker without a vector."""
    width = max((len(vector) for vector in embeddings if vector is not None), default=0)
    vectors = np.zeros((len(embeddings), width))
    for row, vector in zip(vectors, embeddings, strict=True):
        if vector is not None and np.isfinite(vector).all() and (length := np.linalg.norm(vector)) > 0:
            row[:] = vector / length
    return vectors
