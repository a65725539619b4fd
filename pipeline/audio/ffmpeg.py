"""What FFmpeg decodes, through PyAV.

Its wheels bring FFmpeg along; torchcodec's need one that is installed on the system.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import av
import numpy as np

from pipeline.audio.containers import mpeg
from pipeline.audio.stream import BLOCK_VALUES, Samples, Stream, fail
from pipeline.errors import Code

# FFmpeg's names of the formats whose headers give a length: for others (ADTS) it only guesses one.
_TIMED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "flv", "asf", "wv", "tta", "ape"})
_FRAMED = frozenset({"mp3", "aac"})  # formats of nothing but frames, and tags around them
_TIME_SLACK = 0.5  # seconds: headers round, and not every stream lasts to the end
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS")


class Ffmpeg:
    """The first audio stream of a file, from its beginning.

    Args:
        samples: how many the header counts, where that is known.

    Attributes:
        rate, channels: of the stream.
        position: the sample up to which it was read.

    Raises:
        ClipFailedError: FFmpeg does not open it.
    """

    def __init__(self, stream: Stream, samples: int | None) -> None:
        self._stream, self._samples = stream, samples
        try:
            # A playlist must not open other files.
            self._container: Any = av.open(stream, options={"protocol_whitelist": "none"})
        except (av.FFmpegError, ValueError):
            stream.check()
            # Not what it begins with: a manifest of others may name any file.
            fail(Code.UNDECODABLE, "neither libsndfile nor FFmpeg knows the format")
        try:
            self._audio = self._first_audio()
        except BaseException:
            self._container.close()
            raise
        self.rate: int = self._audio.rate or 0
        self.channels: int = self._audio.channels or 0
        self.position = 0
        self._reached = 0.0  # seconds, by the packets of all streams
        self._codec: str = self._audio.codec_context.name.removesuffix("float")
        self._last: Any = b""  # packet
        self._cut = False
        self._failed_s: float | None = None  # where a packet failed that no other has followed

    def _first_audio(self) -> Any:
        if not self._container.streams.audio:
            fail(Code.UNDECODABLE, "the file has no audio stream")
        audio = self._container.streams.audio[0]
        if audio.codec_context is None:
            fail(Code.UNDECODABLE, "FFmpeg has no decoder for the audio stream")
        if not audio.channels:
            fail(Code.UNDECODABLE, "the audio stream has no channels")
        if audio.codec_context.name == "flac":
            audio.codec_context.options = {"err_detect": "crccheck+explode"}
        return audio

    def close(self) -> None:
        self._container.close()

    def blocks(self, start: int, wanted: int | None) -> Iterator[Samples]:
        """(n, channels) each, from sample `start` on, `wanted` together; it decodes from the beginning."""
        held: list[Samples] = []
        values = 0
        for block in self._wanted(start, wanted):
            held.append(block)
            values += block.size
            if values >= BLOCK_VALUES:
                yield np.concatenate(held)
                held, values = [], 0
        if held:
            yield np.concatenate(held)

    def _wanted(self, start: int, wanted: int | None) -> Iterator[Samples]:
        """As the packets have them: thousandths of a block."""
        end = None if wanted is None else start + wanted
        for frame in _alike(self._frames(), self._audio.layout, self.rate):
            first, self.position = self.position, self.position + frame.samples
            block = frame.to_ndarray().T[max(0, start - first) : None if end is None else max(0, end - first)]
            if len(block):
                yield block
            if end is not None and self.position >= end:
                return

    def _frames(self) -> Iterator[Any]:
        try:
            for packet in self._container.demux():
                if packet.pts is not None and packet.duration:
                    self._reached = max(
                        self._reached, float((packet.pts + packet.duration) * packet.time_base)
                    )
                if packet.stream is self._audio:
                    yield from self._decoded(packet)
        except av.FFmpegError:
            self._stream.check()
            at = self.position / self.rate
            fail(Code.UNDECODABLE, f"FFmpeg does not know what follows on the first {at:.3f} s")
        self._stream.check()

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            frames: list[Any] = packet.decode()
            self._cut |= packet.is_corrupt or any(frame.is_corrupt for frame in frames)
            # A packet of FLAC is a frame: more of them are one that is damaged and those after it.
            failed = self._codec == "flac" and packet.size and len(frames) != 1
        except av.FFmpegError:
            self._stream.check()
            frames, failed = [], True
        if frames and packet.size and self._failed_s is not None:
            fail(Code.UNDECODABLE, f"the {self._codec} data are damaged after {self._failed_s:.3f} s")
        if failed and packet.size and not _is_tag(bytes(packet)):
            self._failed_s = self.position / self.rate
        if packet.size:
            self._last = packet
        return frames

    def check(self) -> None:
        """Refuses a file that was read to its end and is not whole."""
        at = self.position / self.rate
        if self._container.format.name in _FRAMED:
            # Without a header, what follows the last frame is one that was cut, or none at all.
            cut = mpeg.is_cut(bytes(self._last))
        else:
            cut = self._cut or self._failed_s is not None
        if cut:
            fail(Code.TRUNCATED, f"a frame of the {self._codec} data is incomplete; {at:.3f} s were decoded")
        if self._samples is not None and self.position < self._samples:
            _ends_early(self._samples / self.rate, at)
        if self._container.format.name in _TIMED and self._container.duration:
            length = self._container.duration / 1e6
            if self._reached < length - _TIME_SLACK:
                _ends_early(length, self._reached)


def _ends_early(length_s: float, end_s: float) -> NoReturn:
    fail(Code.TRUNCATED, f"the header gives {length_s:.3f} s of audio, it ends after {end_s:.3f} s")


def _is_tag(packet: bytes) -> bool:
    """Whether these bytes between frames, or after them, are no audio."""
    return packet.startswith(_TAGS) or not any(packet)


def _alike(frames: Iterator[Any], layout: Any, rate: int) -> Iterator[Any]:
    """The same audio in planar float32, these channels and this rate: files joined to one may differ."""
    resampler, shape = None, ("fltp", layout.name, rate)
    for frame in frames:
        given = frame.format.name, frame.layout.name, frame.sample_rate
        frame.pts = None  # the second of two files begins at zero
        if given != shape and resampler is not None:
            yield from resampler.resample(None)
            resampler = None
        shape = given
        if given == ("fltp", layout.name, rate):
            yield frame
        else:
            resampler = resampler or av.AudioResampler(format="fltp", layout=layout, rate=rate)
            yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)
