"""Log mel filterbank energies, as Kaldi's `compute-fbank-feats` defines them, and their normalisation.

Everything up to the logarithm runs in double precision, except that spectra are rounded to single precision
on the way, as the published extractor does: with that the features are equal to it bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]

PREEMPHASIS = 0.97
MEL_FLOOR = float(np.finfo(np.float32).eps)  # Kaldi's floor for the energy of a mel bin
VARIANCE_FLOOR = 1e-7
_PCM_SCALE = np.float32(2**15)  # Kaldi reads 16-bit integers; waveforms here lie in [-1, 1]
_FRAMES_AT_ONCE = 256  # what a core's cache holds


@dataclass(frozen=True)
class Fbank:
    """Frames of log mel energies: no DC offset, pre-emphasis, povey window, no dither, whole frames only.

    Lengths are in samples, frequencies in hertz. Source: Povey et al., "The Kaldi speech recognition toolkit"
    (2011), `feat/feature-fbank.cc` and `feat/mel-computations.cc`.
    """

    num_mel_bins: int = 80
    sampling_rate: int = 16000
    frame_length: int = 400
    frame_shift: int = 160
    low_frequency: float = 20.0
    high_frequency: float = 8000.0
    window: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    _bands: tuple[tuple[slice, slice, NDArray[np.float64]], ...] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", np.hanning(self.frame_length) ** 0.85)
        object.__setattr__(self, "_bands", _bands(self.mel_filters()))

    @property
    def fft_length(self) -> int:
        """The next power of two."""
        return 1 << (self.frame_length - 1).bit_length()

    def num_frames(self, num_samples: int) -> int:
        """How many whole frames `num_samples` hold."""
        return max(0, 1 + (num_samples - self.frame_length) // self.frame_shift)

    def num_samples(self, num_frames: int) -> int:
        """The fewest samples that hold `num_frames` whole frames."""
        return self.frame_length + (num_frames - 1) * self.frame_shift

    def mel_filters(self) -> NDArray[np.float64]:
        """Weights (num_mel_bins, fft_length / 2 + 1): triangles over mel = 1127 ln(1 + hertz / 700)."""
        edges = np.linspace(_mel(self.low_frequency), _mel(self.high_frequency), self.num_mel_bins + 2)[
            :, None
        ]
        bins = _mel(np.arange(self.fft_length // 2 + 1) * (self.sampling_rate / self.fft_length))
        rising = (bins - edges[:-2]) / np.diff(edges, axis=0)[:-1]
        falling = (edges[2:] - bins) / np.diff(edges, axis=0)[1:]
        return np.maximum(0.0, np.minimum(rising, falling))

    def __call__(self, waveform: Array) -> Array:
        """Log mel energies of one waveform.

        Args:
            waveform: (samples,) float32 in [-1, 1].

        Returns:
            (num_mel_bins, frames) float32: bins first, so that sums over time run along memory.
        """
        frames = self.num_frames(len(waveform))
        energies = np.empty((self.num_mel_bins, frames), np.float32)
        scratch = np.zeros((min(frames, _FRAMES_AT_ONCE), self.fft_length))
        for first in range(0, frames, _FRAMES_AT_ONCE):
            last = min(first + _FRAMES_AT_ONCE, frames)
            start = first * self.frame_shift
            samples = waveform[start : start + self.num_samples(last - first)]
            self._block(samples, scratch[: last - first], out=energies[:, first:last])
        return energies

    def _block(self, waveform: Array, scratch: NDArray[np.float64], out: Array) -> None:
        samples = (waveform * _PCM_SCALE).astype(np.float64)
        # Pre-emphasis of the whole block at once. A frame's first sample has no predecessor, but there the
        # povey window is zero; and taking a constant off before pre-emphasis is taking 0.03 of it off after.
        emphasised = samples.copy()
        emphasised[1:] -= PREEMPHASIS * samples[:-1]
        offset = self._frames(samples).mean(axis=1, keepdims=True) * (1 - PREEMPHASIS)
        windowed = scratch[:, : self.frame_length]
        np.subtract(self._frames(emphasised), offset, out=windowed)
        windowed *= self.window

        spectrum = np.fft.rfft(scratch).astype(np.complex64)
        power = np.abs(spectrum, dtype=np.float64) ** 2
        for mel_bins, fft_bins, weights in self._bands:
            band = weights @ power[:, fft_bins].T
            out[mel_bins] = np.log(np.maximum(MEL_FLOOR, band, out=band), out=band)

    def _frames(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.frame_length)
        return windows[:: self.frame_shift]


def _mel(hertz: ArrayLike) -> NDArray[np.float64]:
    return 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)


def _bands(filters: NDArray[np.float64]) -> tuple[tuple[slice, slice, NDArray[np.float64]], ...]:
    """The filters in groups of neighbours with the few FFT bins each group reads: most weights are zero."""
    bands = []
    for first in range(0, len(filters), 8):
        group = filters[first : first + 8]
        used = np.flatnonzero(group.any(axis=0))
        fft_bins = slice(used[0], used[-1] + 1) if len(used) else slice(0, 1)
        bands.append((slice(first, first + len(group)), fft_bins, np.ascontiguousarray(group[:, fft_bins])))
    return tuple(bands)


def normalize(energies: Array) -> Array:
    """Each mel bin to zero mean and unit variance over time (one degree of freedom taken off).

    Args:
        energies: (bins, frames) float32, at least two frames.

    Returns:
        (bins, frames) float32; a bin that never changes (digital silence) gives zeros up to rounding.
    """
    return FbankStatistics.of(energies).normalize(energies)


@dataclass(frozen=True)
class FbankStatistics:
    """Mean and standard deviation of each mel bin over a whole recording; (bins, 1) float64, or float32 where
    the recording was in memory as a whole."""

    mean: NDArray[np.floating]
    deviation: NDArray[np.floating]
    frames: int

    @classmethod
    def of(cls, energies: Array) -> FbankStatistics:
        """Of (bins, frames) float32, at least two frames, in single precision as published."""
        mean = energies.mean(axis=1, keepdims=True)
        variance = energies.var(axis=1, ddof=1, keepdims=True)
        return cls(mean, np.sqrt(variance + np.float32(VARIANCE_FLOOR)), energies.shape[1])

    def normalize(self, energies: Array) -> Array:
        """As `normalize`, but with the whole recording's statistics: (bins, frames) to the same, float32."""
        result: Array = ((energies - self.mean) / self.deviation).astype(np.float32, copy=False)
        return result


class RunningStatistics:
    """Statistics of energies that come in blocks; the memory of one frame, whatever their number."""

    def __init__(self) -> None:
        self.frames = 0
        # Sums of differences from the first frame: they keep their digits.
        self._shift: NDArray[np.float64] = np.zeros(0)
        self._sum: NDArray[np.float64] | float = 0.0
        self._sum_of_squares: NDArray[np.float64] | float = 0.0

    def add(self, energies: Array) -> None:
        """Take (bins, frames) of any number of frames."""
        if not energies.shape[1]:
            return
        if not self.frames:
            self._shift = energies[:, :1].astype(np.float64)
        shifted = energies - self._shift
        self._sum += shifted.sum(axis=1, keepdims=True)
        self._sum_of_squares += np.square(shifted).sum(axis=1, keepdims=True)
        self.frames += energies.shape[1]

    def finish(self) -> FbankStatistics:
        """The statistics of all frames so far.

        Raises:
            ValueError: fewer than two frames, so no variance.
        """
        if self.frames < 2:
            raise ValueError(f"normalisation needs two frames or more, not {self.frames}")
        mean = self._sum / self.frames
        variance = (self._sum_of_squares - self._sum * mean) / (self.frames - 1)
        deviation = np.sqrt(np.maximum(variance, 0.0) + VARIANCE_FLOOR)
        return FbankStatistics(mean + self._shift, deviation, self.frames)


class FbankStream:
    """The energies of a recording that arrives, or is kept, in blocks.

    `add` gives the frames that each block completes: laid end to end they are those of the whole recording.
    `finish` gives the statistics for the normalisation. Memory is one frame and the statistics.
    """

    def __init__(self, fbank: Fbank | None = None) -> None:
        self.fbank = fbank or Fbank()
        self._pending = np.empty(0, np.float32)
        self._statistics = RunningStatistics()

    @property
    def frames(self) -> int:
        """Frames complete so far."""
        return self._statistics.frames

    def add(self, samples: Array) -> Array:
        """Take the next samples, (n,) float32 of any n; return the frames now complete, (bins, frames)."""
        samples = np.concatenate([self._pending, samples])
        energies = self.fbank(samples)
        self._pending = samples[energies.shape[1] * self.fbank.frame_shift :].copy()
        self._statistics.add(energies)
        return energies

    def finish(self) -> FbankStatistics:
        """The statistics of all frames so far.

        Raises:
            ValueError: fewer than two frames, so no variance.
        """
        return self._statistics.finish()
