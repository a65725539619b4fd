"""What libsndfile decodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import soundfile

from pipeline.audio.containers import mpeg
from pipeline.audio.stream import BLOCK_VALUES, Samples, Stream, fail
from pipeline.errors import Code

_BLOCK = 4096  # samples: what a codec may have filled up at the end
_UNKNOWN = 1 << 48  # frames; libsndfile's own sign for it is the largest count it can write
# Seconds to decode before those wanted. MP3 and Opus remember what came before; in the last page of Vorbis,
# which holds no more than 9 s, libsndfile does not find the right sample.
_RUN_UP = {"MPEG_LAYER_III": 3, "OPUS": 3, "VORBIS": 10}
# Their headers count samples exactly, and libsndfile limits the count to the bytes that are there.
_PLAIN = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU"})


class _Straight(soundfile.SoundFile):
    """soundfile seeks after every read where it can, and MP3 and Ogg do not go on from there unharmed."""

    @property
    def can_seek(self) -> bool:
        return bool(super().seekable())

    def seekable(self) -> bool:
        return False


class SoundFile:
    """One file of audio.

    Args:
        counted: of MPEG audio: whether its header counts the samples. If not, libsndfile guesses.
        meant: how many samples are meant of those that the blocks of a codec hold; 0: not known.

    Attributes:
        rate, channels, format: as stored.
        length: samples, by the header.
        knows_its_length: whether `length` is no guess.
        is_plain: whether `length` is sure before anything is decoded.
        position: the sample up to which it was read.

    Raises:
        soundfile.LibsndfileError: libsndfile does not open it.
    """

    def __init__(self, stream: Stream, *, counted: bool, meant: int = 0) -> None:
        self._stream = stream
        self._file = _Straight(stream)
        self.format: str = self._file.format
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.length: int = self._file.frames
        if meant and 0 < self.length - meant < _BLOCK:
            self.length = meant
        guessed = self._file.subtype.startswith("MPEG") and not counted
        self.knows_its_length = not guessed and self.length < _UNKNOWN
        self.is_plain = self.format in _PLAIN
        self.position = 0

    def close(self) -> None:
        self._file.close()

    @property
    def read_to(self) -> int:
        """The byte of the stream up to which libsndfile has asked for it."""
        return self._stream.tell()

    def blocks(self, start: int, wanted: int | None) -> Iterator[Samples]:
        """(n, channels) each, from sample `start` on, `wanted` together."""
        size = max(1, BLOCK_VALUES // self.channels)
        start = min(start, self.length)
        end = self.length if wanted is None else min(start + wanted, self.length)
        try:
            self._seek(start)
            while self.position < end:
                goal = end if self.position >= start else start
                block: Samples = self._file.read(
                    min(size, goal - self.position), dtype="float32", always_2d=True
                )
                self._stream.check()
                if not len(block):
                    return
                self.position += len(block)
                if self.position > start:
                    yield block
        except soundfile.LibsndfileError:
            self._stream.check()
            self._broken()

    def _seek(self, start: int) -> None:
        """As near before `start` as the format allows."""
        # MP3 from the start too, as soundfile.read does: the decoder rounds differently without.
        if (start or self.format == "MP3") and self._file.can_seek:
            run_up = _RUN_UP.get(self._file.subtype, 0) * self.rate
            self.position = max(0, min(start, self.length - 1) - run_up)
            self._file.seek(self.position)

    def _broken(self) -> NoReturn:
        # A decoder that starved has read to the last byte; one that met damage stopped before it.
        if self.read_to >= self._stream.size:
            length = self.length / self.rate
            fail(
                Code.TRUNCATED, f"the {self.format} data end before the {length:.3f} s that the header gives"
            )
        at = self.position / self.rate
        fail(Code.UNDECODABLE, f"the {self.format} data are damaged, {at:.3f} s in or later")

    def check(self) -> None:
        """Refuses a file that was read to its end and has less than its header says."""
        is_short = self.position < self.length
        if is_short and self.format == "MP3" and (at := mpeg.interrupted(self._stream)) is not None:
            fail(Code.UNDECODABLE, f"the MP3 data are damaged: at byte {at} of them no frame begins")
        # Some encoders of MP3 count a frame too many, or two.
        slack = 0 if self.format != "MP3" else 2 * 1152 if self.rate >= 32_000 else 2 * 576
        if self.position < self.length - slack:
            fail(
                Code.TRUNCATED,
                f"the header gives {self.length / self.rate:.3f} s of audio, "
                f"it ends after {self.position / self.rate:.3f} s",
            )
