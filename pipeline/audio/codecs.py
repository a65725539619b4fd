"""Encoded audio to samples. libsndfile reads a file whose header gives its length; FFmpeg reads the rest.

What is read is proven whole: by the framing of the file (`containers`), by the length in its header, and by
the decoder's last frame. What it lacks is an error. Files one after another are read as one.
"""

from __future__ import annotations

from collections.abc import Iterator

import soundfile

from pipeline.audio import containers
from pipeline.audio.ffmpeg import Ffmpeg
from pipeline.audio.resampling import at_rate
from pipeline.audio.sound_file import SoundFile
from pipeline.audio.stream import Samples, Stream, fail
from pipeline.errors import ClipFailedError, Code

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # hertz


class Decoder:
    """All files of audio that a stream holds one after another; mostly one.

    Args:
        whole: all of it is going to be read.

    Attributes:
        rate, channels: of the first file. Later ones are given at its rate, with the channels they have.
        length: samples, once it is known for sure.
    """

    def __init__(self, stream: Stream, *, whole: bool) -> None:
        self._stream, self._whole = stream, whole
        start = containers.beginning(stream)
        if start >= stream.size:
            fail(Code.TRUNCATED, "nothing follows the tags that the file begins with")
        self._file = _File(stream, start, whole=whole)
        self.rate, self.channels = self._file.decoder.rate, self._file.decoder.channels
        self.length = self._file.only_length()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blocks(self, start: int, wanted: int | None) -> Iterator[Samples]:
        """(n, channels) each, from sample `start` on, `wanted` together.

        Raises:
            ClipFailedError: the audio ends before `wanted`, and not where it should.
        """
        done = before = 0
        while True:
            decoder = self._file.decoder
            scale = decoder.rate / self.rate
            left = None if wanted is None else round((wanted - done) * scale)
            blocks = decoder.blocks(self._file.given + round(max(0, start - before) * scale), left)
            for block in blocks if scale == 1 else at_rate(blocks, decoder.rate, self.rate):
                done += len(block)
                yield block
            if wanted is not None and done >= wanted:
                return
            self._file.check()
            before += round((decoder.position - self._file.given) / scale)
            following = self._file.following()
            if following is None:
                self.length = before
                return
            self._file.close()
            self._file = following


class _File:
    """One of the files of a stream.

    Args:
        given: samples of it that were read already: FFmpeg goes on where libsndfile stopped.
    """

    def __init__(self, stream: Stream, start: int, *, whole: bool, given: int = 0) -> None:
        self._stream, self._start, self._whole, self.given = stream, start, whole, given
        self._layout = containers.layout(stream, start, whole=whole)
        stream.check()
        try:
            self.decoder = _decoder(self._layout, other=given > 0)
        except ClipFailedError:
            if lacks := self._layout.lacks():
                fail(Code.TRUNCATED, lacks)
            if self._layout.unopened is not None:
                fail(*self._layout.unopened)
            raise
        if not LOWEST_RATE <= (rate := self.decoder.rate) <= HIGHEST_RATE:
            self.close()
            outside = f"is outside {LOWEST_RATE} to {HIGHEST_RATE} Hz"
            fail(Code.BAD_SAMPLE_RATE, f"a sample rate of {rate} Hz {outside}")

    def close(self) -> None:
        self.decoder.close()

    def only_length(self) -> int | None:
        """The length of the stream in samples, if a header gives it and this is its only file."""
        decoder, end = self.decoder, self._layout.end
        if isinstance(decoder, Ffmpeg) or not decoder.is_plain or end is None:
            return None
        return decoder.length if containers.following(self._stream, end) is None else None

    def check(self) -> None:
        """Refuses a file that was read to its end and is not whole."""
        lacks = self._layout.lacks()
        self._stream.check()
        if lacks:
            fail(Code.TRUNCATED, lacks)
        self.decoder.check()

    def following(self) -> _File | None:
        """The next file, or what libsndfile has left over of this one."""
        decoder, more = self.decoder, False
        if self._layout.end is not None:
            at = containers.following(self._stream, self._layout.end)
        elif isinstance(decoder, Ffmpeg):
            return None  # it has read all of the stream
        else:
            end = self._start + decoder.read_to
            at, more = containers.left_over(self._stream, self._start, end, decoder.format)
        if more:
            return _File(self._stream, self._start, whole=self._whole, given=decoder.position)
        return None if at is None else _File(self._stream, at, whole=self._whole)


def _decoder(layout: containers.Layout, *, other: bool) -> SoundFile | Ffmpeg:
    if not (layout.other or other):
        try:
            decoder = SoundFile(layout.stream, counted=layout.counted, meant=layout.meant)
            if decoder.knows_its_length:
                return decoder
            decoder.close()
        except soundfile.LibsndfileError:
            layout.stream.check()
    layout.stream.seek(0)
    return Ffmpeg(layout.stream, layout.samples)
