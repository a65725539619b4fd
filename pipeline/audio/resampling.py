"""Any sample rate to the model's, in one go or block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from pipeline.audio.stream import Samples
from w2vbert.arrays import round_up

if TYPE_CHECKING:  # late: much audio is at 16 kHz, and processes that import torchaudio start later
    from torchaudio.transforms import Resample

SAMPLE_RATE = 16_000  # hertz
_KERNEL_VALUES = 1 << 24  # of the resampling filter bank; torchaudio's grows with both reduced rates
_COARSE_DENOMINATOR = 500
_HELD_BANKS = 8
_HELD_VALUES = 1 << 20  # of a bank that is held: 44.1 kHz has 71,000


def resample(samples: Samples, rate: int) -> Samples:
    """(n,) float32 at `rate` hertz to `SAMPLE_RATE`, by `torchaudio.functional.resample` with its defaults.

    A rate with next to no divisor in common with 16000 (44101 Hz) would need a filter bank of gigabytes:
    there the ratio of the rates is rounded, by some millionths.
    """
    ratio = _ratio(rate)
    if ratio == 1:
        return samples
    return _resampled(_bank(ratio), samples)


class Resampler:
    """`resample` for samples that arrive in blocks: laid end to end, the results are those of the whole.

    They agree within float32's rounding (1e-6). torchaudio rounds the length of the whole in single precision
    and may leave out the last sample of a long one; here the length is exact.
    """

    def __init__(self, rate: int, to: int = SAMPLE_RATE) -> None:
        ratio = _ratio(rate, to)
        self._bank = None if ratio == 1 else _bank(ratio)
        # Every `_step` samples in, `_made` go out, with the same filters: blocks are cut at multiples of it.
        self._step, self._made = ratio.numerator, ratio.denominator
        reach = 0 if self._bank is None else int(self._bank.width)  # samples that a filter sees on each side
        self._margin = round_up(reach, self._step)
        self._pending = np.empty(0, np.float32)
        self._behind = 0  # samples in front of `_pending` that are done and only seen by the next

    def add(self, samples: Samples) -> Samples:
        """Take the next samples, (n,) float32 of any n; return what they make certain."""
        self._pending = np.concatenate([self._pending, samples])
        ready = (len(self._pending) - self._behind - self._margin) // self._step * self._step
        if ready <= 0:
            return np.empty(0, np.float32)
        result = self._made_of(self._pending[: self._behind + ready + self._margin], ready)
        seen = self._behind + ready
        self._behind = min(self._margin, seen)
        self._pending = self._pending[seen - self._behind :].copy()
        return result

    def finish(self) -> Samples:
        """The rest, which ends with the recording."""
        left = len(self._pending) - self._behind
        return self._made_of(np.pad(self._pending, (0, self._step)), left) if left else self._pending[:0]

    def _made_of(self, samples: Samples, wanted: int) -> Samples:
        """What becomes of `wanted` samples after those behind."""
        first = self._behind // self._step * self._made
        made = -(-wanted * self._made // self._step)
        result = samples if self._bank is None else _resampled(self._bank, samples)
        return result[first : first + made]


def resample_blocks(blocks: Iterable[Samples], rate: int) -> Iterator[Samples]:
    """`resample` of blocks of (n,) at `rate` hertz."""
    resampler = Resampler(rate)
    for block in blocks:
        if len(samples := resampler.add(block)):
            yield samples
    if len(samples := resampler.finish()):
        yield samples


def at_rate(blocks: Iterable[Samples], rate: int, to: int) -> Iterator[Samples]:
    """Blocks of (n, channels) at `rate` hertz, at another."""
    resamplers: list[Resampler] = []
    for block in blocks:
        resamplers = resamplers or [Resampler(rate, to) for _ in block.T]
        yield np.stack(
            [resampler.add(channel) for resampler, channel in zip(resamplers, block.T, strict=True)], axis=1
        )
    if resamplers:
        yield np.stack([resampler.finish() for resampler in resamplers], axis=1)


def _bank(ratio: Fraction) -> Resample:
    """The filters for a ratio of rates; to make those of 44.1 kHz takes as long as a second of audio."""
    held = ratio.numerator * ratio.denominator <= _HELD_VALUES
    return _held_bank(ratio) if held else _held_bank.__wrapped__(ratio)


@lru_cache(_HELD_BANKS)
def _held_bank(ratio: Fraction) -> Resample:
    import torch
    from torchaudio.transforms import Resample

    # Single precision, so that the filters are those of `torchaudio.functional.resample`.
    return Resample(ratio.numerator, ratio.denominator, dtype=torch.float32)


def _resampled(bank: Resample, samples: Samples) -> Samples:
    import torch

    result: Samples = bank(torch.from_numpy(samples)).numpy()
    return result


def _ratio(rate: int, to: int = SAMPLE_RATE) -> Fraction:
    ratio = Fraction(rate, to)
    if ratio.numerator * ratio.denominator > _KERNEL_VALUES:
        return ratio.limit_denominator(_COARSE_DENOMINATOR)
    return ratio
