"""Encoded audio to what the model hears: one channel of float32 samples at 16 kHz."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import BinaryIO, NoReturn

import numpy as np

from pipeline.audio.codecs import Decoder
from pipeline.audio.resampling import resample, resample_blocks
from pipeline.audio.stream import Samples, Stream, fail
from pipeline.errors import Code

_SILENCE = 1 / 32768  # one step of 16-bit PCM
_PART_SLACK = 0.5  # seconds that a part may reach beyond the audio, as lhotse tolerates it


@dataclass(frozen=True)
class Waveform:
    """Decoded audio.

    Attributes:
        samples: (n,) float32, one channel at `SAMPLE_RATE`.
        sample_rate: in hertz, as stored.
        channels: as stored.
        duration_s: decoded length, before resampling.
        silent: digital silence: all samples equal, or none beyond one step of 16-bit PCM.
    """

    samples: Samples
    sample_rate: int
    channels: int
    duration_s: float
    silent: bool


def decode(
    data: bytes | BinaryIO,
    *,
    channel: str = "mean",
    max_duration_s: float = float("inf"),
    start_s: float | None = None,
    length_s: float | None = None,
) -> Waveform:
    """The samples of one clip, all at once; arguments and errors are those of `Recording`."""
    with Recording(
        data, channel=channel, max_duration_s=max_duration_s, start_s=start_s, length_s=length_s
    ) as recording:
        samples = recording.whole()
        return Waveform(
            samples, recording.sample_rate, recording.channels, recording.duration_s, recording.silent
        )


class Recording:
    """One channel of a recording of any length, decoded once and only as far as it is asked for.

    Files one after another are one recording (chained Ogg, joined MP3), at the rate of the first. Of several
    audio streams the first is taken. Resampling is `torchaudio.functional.resample` as it comes.

    Args:
        data: the encoded bytes, or a file open for reading, which must be able to seek.
        channel: of several, "mean" of all, "left", "right", or an index from 0.
        max_duration_s: refuse what is longer.
        start_s, length_s: the part to take, in seconds; to the end when no length is given.

    Attributes:
        sample_rate, channels: as stored.
        duration_s: seconds decoded so far.

    Raises:
        ClipFailedError: the audio cannot be had; `error` says why. Here, or while it is read: that a
            recording is complete is known at its end.
        OSError: the open file could not be read.
    """

    def __init__(
        self,
        data: bytes | BinaryIO,
        *,
        channel: str = "mean",
        max_duration_s: float = float("inf"),
        start_s: float | None = None,
        length_s: float | None = None,
    ) -> None:
        stream = Stream(io.BytesIO(data) if isinstance(data, bytes) else data)
        if stream.size == 0:
            fail(Code.EMPTY, "the audio has no bytes")
        part = _Part(start_s or 0.0, length_s)
        part.check()
        self._decoder = Decoder(stream, whole=length_s is None)
        self.sample_rate, self.channels = self._decoder.rate, self._decoder.channels
        self._part, self._channel, self._max_duration_s = part, channel, max_duration_s
        self._decoded = 0
        self._lowest, self._highest = float("inf"), float("-inf")
        self._held: list[Samples] = []
        self._rest = self._read()

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoder.__exit__(kind, error, trace)

    @property
    def duration_s(self) -> float:
        return self._decoded / self.sample_rate

    @property
    def silent(self) -> bool:
        """Digital silence so far: all samples equal, or none beyond one step of 16-bit PCM."""
        return self._lowest == self._highest or max(-self._lowest, self._highest) <= _SILENCE

    def longer_than(self, seconds: float) -> bool:
        """Decodes until this is known: headers may lie. What was decoded is kept for `whole` or `blocks`."""
        while self.duration_s <= seconds:
            block = next(self._rest, None)
            if block is None:
                return False
            self._held.append(block)
        return True

    def whole(self) -> Samples:
        """All samples: (n,) float32 at `SAMPLE_RATE`. Once, and instead of `blocks`."""
        return resample(np.concatenate([*self._held, *self._rest]), self.sample_rate)

    def blocks(self) -> Iterator[Samples]:
        """`whole` in blocks, within 1e-6, in memory that the recording's length has no part in."""
        held, self._held = iter(self._held), []
        yield from resample_blocks(chain(held, self._rest), self.sample_rate)

    def _read(self) -> Iterator[Samples]:
        """The part's samples of one channel at the stored rate, checked as far as they go."""
        source, part, rate = self._decoder, self._part, self.sample_rate
        limit = self._max_duration_s * rate
        wanted = None if part.length_s is None else round(part.length_s * rate)
        start = round(part.start_s * rate)
        if wanted == 0:
            fail(Code.EMPTY, f"the part asked for is {part.length_s:g} s long, less than a sample")
        length = source.length
        asked = [count for count in (wanted, None if length is None else length - start) if count is not None]
        if min(asked, default=0) > limit:
            _too_long(self._max_duration_s)

        pick = _Picker(self._channel, source.channels)
        for block in source.blocks(start, wanted):
            samples = pick(block)
            if self._decoded + len(samples) > limit:
                _too_long(self._max_duration_s)
            self._check(samples)
            self._decoded += len(samples)
            yield samples
        if not self._decoded:
            if start:
                _begins_beyond(part, (source.length or 0) / rate)
            fail(Code.EMPTY, "the audio has no samples")
        if wanted is not None and self._decoded < wanted - _PART_SLACK * rate:
            fail(
                Code.TRUNCATED,
                f"the part from {part.start_s:g} s should be {part.length_s:g} s long, "
                f"the audio ends after {self.duration_s:.3f} s of it",
            )

    def _check(self, samples: Samples) -> None:
        lowest, highest = float(samples.min()), float(samples.max())
        if not np.isfinite([lowest, highest]).all():
            bad = int(np.argmin(np.isfinite(samples)))
            at = self._decoded + bad
            fail(
                Code.NON_FINITE,
                f"sample {at}, at {at / self.sample_rate:.3f} s, is {samples[bad]}, not a finite number",
            )
        self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)


@dataclass(frozen=True)
class _Part:
    start_s: float
    length_s: float | None

    def check(self) -> None:
        for name, seconds in (("start_s", self.start_s), ("length_s", self.length_s)):
            if seconds is not None and not 0 <= seconds < float("inf"):
                fail(Code.BAD_RECORD, f"{name} is {seconds:g}: it must be zero or more seconds")


class _Picker:
    """(samples, channels) to (samples,)."""

    def __init__(self, channel: str, channels: int) -> None:
        self._index = None if channel == "mean" else {"left": 0, "right": 1}.get(channel)
        if channel != "mean" and self._index is None:
            self._index = int(channel)
        if self._index is not None and not 0 <= self._index < channels:
            fail(Code.UNDECODABLE, f"channel {channel} is asked for, the audio has {channels}")

    def __call__(self, block: Samples) -> Samples:
        if block.shape[1] == 1:
            return block[:, 0]
        if self._index is None:
            mean: Samples = block.mean(axis=1, dtype=np.float32)
            return mean
        # A copy, so that the other channels' memory is given back.
        return block[:, self._index].copy()


def _begins_beyond(part: _Part, length_s: float) -> NoReturn:
    fail(
        Code.EMPTY,
        f"the part asked for begins at {part.start_s:g} s, beyond the end of the audio, "
        f"which is {length_s:.3f} s long",
    )


def _too_long(max_duration_s: float) -> NoReturn:
    fail(Code.TOO_LONG, f"the audio is longer than max_duration_s = {max_duration_s:g}")
