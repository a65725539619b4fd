"""Features of recordings of any length in the memory of a block: the rest waits in a temporary file."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.audio.stream import Samples
from pipeline.errors import ClipFailedError, Code, Stage
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.features.fbank import FbankStatistics, FbankStream, RunningStatistics

_ROWS = 4096  # fbank frames normalised at once


class FeatureSpool:
    """The features of one recording, which comes in blocks of samples.

    They can only be normalised when the whole recording was heard. Until then its energies lie in an unlinked
    file in the folder for temporary files (TMPDIR), 32 kB for a second of audio; it is normalised in place
    and handed on as it lies there, mapped into memory.

    The numbers are those of the extractor's `extract(keep_partial=True)` but for its statistics in single
    precision: some 1e-5, and 4e-3 in a bin that never changes.

    Args:
        extractor: whose features.
        dtype: float32 or float16.

    Attributes:
        statistics: that the features were normalised by; None until they are finished.
    """

    def __init__(self, extractor: SeamlessM4TFeatureExtractor, dtype: npt.DTypeLike) -> None:
        self._extractor = extractor
        self._dtype = np.dtype(dtype)
        self._stream = FbankStream(extractor.fbank)
        self._samples = 0
        self.statistics: FbankStatistics | None = None
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (`__exit__` closes it)

    def __enter__(self) -> FeatureSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def num_valid(self) -> int:
        """Stacked frames that the audio so far fills."""
        return self._extractor.num_frames(self._samples)

    @property
    def frames(self) -> int:
        """Stacked frames so far, a partial last one among them."""
        return self._extractor.num_frames(self._samples, keep_partial=True)

    def add(self, samples: Samples) -> None:
        """Take the next samples, (n,) float32 at the extractor's rate, of any n."""
        self._samples += len(samples)
        self._write(self._stream.add(samples).T)

    def finish(self, segments: Sequence[tuple[int, int]]) -> pa.Buffer:
        """The features of these segments, (start, stop) in stacked frames, in order and apart, end to end.

        They are normalised by their own statistics. The buffer holds (frames, width) in C order; its memory
        is that of the file. Nothing can be added after this.

        Raises:
            ClipFailedError: features that are not finite numbers.
        """
        rows, stride = self._stream.frames, self._extractor.stride
        kept = [(start * stride, min(stop * stride, rows)) for start, stop in segments]
        missing = -kept[-1][1] % stride
        # Room for the rows that fill the last stacked frame.
        self._write(np.zeros((missing, self._extractor.num_mel_bins), np.float32))
        self._file.flush()
        size = self._normalize(kept, missing)
        self._file.truncate(size)
        return pa.py_buffer(mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ))

    def _normalize(self, kept: Sequence[tuple[int, int]], missing: int) -> int:
        """Writes the features over the energies, from the file's start; their size in bytes."""
        bins = self._extractor.num_mel_bins
        mapped = mmap.mmap(self._file.fileno(), 0)
        energies: npt.NDArray[np.float32] = np.frombuffer(mapped, np.float32).reshape(-1, bins)
        # Never ahead of where energies are read: features are no larger, and segments only move forward.
        features: npt.NDArray[Any] = np.frombuffer(mapped, self._dtype).reshape(-1, bins)
        self.statistics = statistics = self._statistics(energies, kept)
        done = 0
        for first, last in _blocks(kept):
            block = statistics.normalize(energies[first:last].T).T
            if not np.isfinite(block).all():
                raise ClipFailedError(Stage.FEATURIZE, Code.NON_FINITE, "the features are not finite numbers")
            features[done : done + len(block)] = block
            done += len(block)
        features[done : done + missing] = self._extractor.padding_value
        return (done + missing) * bins * self._dtype.itemsize

    def _statistics(
        self, energies: npt.NDArray[np.float32], kept: Sequence[tuple[int, int]]
    ) -> FbankStatistics:
        if list(kept) == [(0, self._stream.frames)]:
            return self._stream.finish()
        running = RunningStatistics()
        for first, last in _blocks(kept):
            running.add(energies[first:last].T)
        return running.finish()

    def _write(self, rows: npt.NDArray[np.float32]) -> None:
        try:
            self._file.write(np.ascontiguousarray(rows).data)
        except OSError as problem:
            raise ClipFailedError(
                Stage.FEATURIZE,
                Code.OUT_OF_MEMORY,
                f"{tempfile.gettempdir()}, the folder for temporary files, does not hold the features of the "
                f"recording ({problem.strerror}): make room there, or set TMPDIR to another",
            ) from problem


def _blocks(segments: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [
        (first, min(first + _ROWS, stop)) for start, stop in segments for first in range(start, stop, _ROWS)
    ]
