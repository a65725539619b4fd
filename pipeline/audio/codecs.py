"""One interface over libsndfile and FFmpeg, and what headers tell about audio that is incomplete."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt
import soundfile

from pipeline.errors import ClipFailedError, Code, Stage

_BLOCK_VALUES = 1 << 19  # samples times channels decoded at once
# Sizes that writers to a pipe put where they cannot know better.
_UNKNOWN_SIZES = frozenset({0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF})
_HEADER_SLACK = 512  # bytes: some writers count their header as data
# Their headers count samples exactly, and libsndfile limits the count to the bytes that are there.
_PLAIN = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU"})
_LOSSLESS = _PLAIN | {"FLAC"}
# FFmpeg's names of the formats whose headers give a length: for others (ADTS) it only guesses one.
_TIMED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})

Samples = npt.NDArray[np.float32]


def open_decoder(stream: Stream) -> SoundFile | Ffmpeg:
    """What libsndfile opens it decodes (WAV, FLAC, OGG, Opus, MP3, AIFF, ...); the rest goes to FFmpeg."""
    chunk = _data_chunk(stream)
    if chunk is not None and chunk.claimed == 0 and _HEADER_SLACK < chunk.there <= 0xFFFF_FFFF:
        # Written to a pipe: libsndfile would take the zero at its word.
        stream.overlay(chunk.size_at, struct.pack(f"{chunk.order}I", chunk.there))
    try:
        return SoundFile(stream)
    except soundfile.LibsndfileError as problem:
        stream.check()
        stream.seek(0)
        return Ffmpeg(stream, refusal=problem.error_string.strip() or "no known format")


class Stream:
    """A seekable file that remembers its failure: libsndfile's callbacks cannot raise, they only print."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None
        self._overlay: tuple[int, bytes] | None = None
        self.size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        try:
            start = self._file.tell()
            data = self._file.read(size)
        except OSError as problem:
            self.failure = problem
            return b""
        if self._overlay is not None:
            at, patch = self._overlay[0] - start, self._overlay[1]
            if -len(patch) < at < len(data):
                data = data[: max(at, 0)] + patch[max(-at, 0) : len(data) - at] + data[at + len(patch) :]
        return data

    def overlay(self, offset: int, patch: bytes) -> None:
        """Reads `patch` at `offset`, in the place of what the file has there."""
        self._overlay = (offset, patch)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def head(self, size: int, offset: int = 0) -> bytes:
        """`size` bytes from `offset`, without moving."""
        position = self.tell()
        self.seek(offset)
        data = self.read(size)
        self.seek(position)
        return data

    def check(self) -> None:
        """Raises what made a read fail."""
        if self.failure is not None:
            raise self.failure


class SoundFile:
    """What libsndfile decodes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._file = soundfile.SoundFile(stream)
        self._format: str = self._file.format
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        frames: int = self._file.frames
        # libsndfile's "unknown" is the largest count it can write.
        self.length = frames if 0 < frames < 1 << 48 else None
        self.length_is_sure = self._format in _PLAIN

    def __enter__(self) -> SoundFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blocks(self, start: int, wanted: int | None) -> Iterator[Samples]:
        """(n, channels) each, from sample `start` on, `wanted` together."""
        size = max(1, _BLOCK_VALUES // self.channels)
        done = 0
        try:
            if start and self.length is not None and start >= self.length:
                return
            # From the start too, as soundfile.read does: the MP3 decoder rounds differently without.
            self._file.seek(start)
            while wanted is None or done < wanted:
                ask = size if wanted is None else min(size, wanted - done)
                block: Samples = self._file.read(ask, dtype="float32", always_2d=True)
                self._stream.check()
                if not len(block):
                    return
                done += len(block)
                yield block
        except soundfile.LibsndfileError as problem:
            self._stream.check()
            self._broken(problem)

    def _broken(self, problem: soundfile.LibsndfileError) -> NoReturn:
        # A decoder that starved has read to the last byte; one that met damage stopped before it.
        if self._stream.tell() >= self._stream.size and self.length is not None:
            fail(
                Code.TRUNCATED,
                f"the {self._format} data end before the {self.length / self.rate:.3f} s the header gives",
            )
        reason = problem.error_string.strip() or f"libsndfile's error {problem.code}"
        fail(Code.UNDECODABLE, f"the {self._format} data are damaged: {reason}")

    def check_complete(self, decoded: int, whole: bool) -> None:
        """Refuses audio that ends before its header says; `decoded` samples from the file's start."""
        chunk = _data_chunk(self._stream)
        if chunk is not None and chunk.claimed not in _UNKNOWN_SIZES:
            missing = chunk.claimed - chunk.there
            if missing > _HEADER_SLACK:
                fail(
                    Code.TRUNCATED, f"the header gives {chunk.claimed} bytes of audio, {missing} are missing"
                )
        if self._format == "OGG" and _page_is_cut(self._stream):
            fail(Code.TRUNCATED, "the OGG data end in the middle of a page")
        if self.length is not None and whole:
            _check_length(decoded, self.length, self.rate, exact=self._format in _LOSSLESS)


class Ffmpeg:
    """What only FFmpeg decodes, through PyAV."""

    def __init__(self, stream: Stream, refusal: str) -> None:
        try:
            import av
        except ImportError:
            kind = _ffmpeg_kind(stream.head(12))
            if kind is not None:
                fail(Code.UNDECODABLE, f"{kind} audio needs FFmpeg: pip install 'w2vbert[ffmpeg]'")
            fail(Code.UNDECODABLE, f"libsndfile does not open it: {refusal}")
        self._av = av
        self._stream = stream
        try:
            # Playlists and session descriptions name files and hosts: none of them is asked.
            self._container: Any = av.open(stream, options={"protocol_whitelist": "none"})
        except (av.FFmpegError, ValueError) as problem:
            stream.check()
            fail(Code.UNDECODABLE, f"neither libsndfile ({refusal}) nor FFmpeg ({_reason(problem)}) opens it")
        if not self._container.streams.audio:
            self._container.close()
            fail(Code.UNDECODABLE, "the file has no audio stream")
        self._audio = self._container.streams.audio[0]
        self.rate: int = self._audio.rate or 0
        self.channels: int = self._audio.channels or 0
        self.length = self._header_length()
        self.length_is_sure = False
        if not self.channels:
            self._container.close()
            fail(Code.UNDECODABLE, "FFmpeg finds no channels in the audio stream")

    def _header_length(self) -> int | None:
        if self._container.format.name not in _TIMED:
            return None
        if self._audio.duration and self._audio.time_base:
            return round(self._audio.duration * self._audio.time_base * self.rate)
        microseconds = self._container.duration
        return round(microseconds * self.rate / 1_000_000) if microseconds else None

    def __enter__(self) -> Ffmpeg:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def blocks(self, start: int, wanted: int | None) -> Iterator[Samples]:
        """(n, channels) each, from sample `start` on, `wanted` together; it decodes from the beginning."""
        held: list[Samples] = []
        values = 0
        for block in self._packets(start, wanted):
            held.append(block)
            values += block.size
            if values >= _BLOCK_VALUES:
                yield np.concatenate(held)
                held, values = [], 0
        if held:
            yield np.concatenate(held)

    def _packets(self, start: int, wanted: int | None) -> Iterator[Samples]:
        """As the packets have them: thousandths of a block."""
        end = None if wanted is None else start + wanted
        position = 0
        try:
            for frame in self._frames():
                block = frame.to_ndarray().T[
                    max(0, start - position) : None if end is None else end - position
                ]
                position += frame.samples
                if len(block):
                    yield block
                if end is not None and position >= end:
                    return
        except self._av.FFmpegError as problem:
            self._stream.check()
            if self.length is not None:
                _check_length(position, self.length, self.rate, exact=False)
            fail(Code.UNDECODABLE, f"FFmpeg fails after {position / self.rate:.3f} s: {_reason(problem)}")
        self._stream.check()

    def _frames(self) -> Iterator[Any]:
        planar = self._av.AudioResampler(format="fltp", layout=self._audio.layout, rate=self.rate)
        for frame in self._container.decode(self._audio):
            yield from planar.resample(frame)
        yield from planar.resample(None)

    def check_complete(self, decoded: int, whole: bool) -> None:
        if self.length is not None and whole:
            _check_length(decoded, self.length, self.rate, exact=False)


def _check_length(decoded: int, length: int, rate: int, *, exact: bool) -> None:
    # Lossy formats pad and estimate: a few hundred samples fewer than the header counts are no damage.
    if decoded < length and (exact or (decoded < 0.9 * length and length - decoded >= 0.5 * rate)):
        fail(
            Code.TRUNCATED,
            f"the header gives {length / rate:.3f} s of audio, it ends after {decoded / rate:.3f} s",
        )


@dataclass(frozen=True)
class _DataChunk:
    """The samples of an uncompressed file, in bytes: as its header gives them, and as they are there."""

    size_at: int  # where the header says the size
    claimed: int
    there: int
    order: str  # of bytes, as `struct` writes it


def _data_chunk(stream: Stream) -> _DataChunk | None:
    """Of WAV, RF64, AIFF and AU; None for other formats, and where there is no such chunk."""
    head = stream.head(12)
    if head[:4] == b".snd" and len(head) == 12:
        offset, size = struct.unpack(">II", head[4:])
        return _DataChunk(8, size, stream.size - offset, ">")
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE":
        order, wanted = ">" if head[:4] == b"RIFX" else "<", b"data"
    elif head[:4] == b"FORM" and head[8:11] == b"AIF":
        order, wanted = ">", b"SSND"
    else:
        return None
    offset, size64 = 12, 0
    while offset + 8 <= stream.size:
        name, size = struct.unpack(f"{order}4sI", stream.head(8, offset))
        offset += 8
        if name == b"ds64" and offset + 16 <= stream.size:
            (size64,) = struct.unpack("<Q", stream.head(8, offset + 8))
        if name == wanted:
            claimed = size64 if size == 0xFFFF_FFFF and size64 else size
            return _DataChunk(offset - 4, claimed, stream.size - offset, order)
        offset += size + size % 2
    return None


def _page_is_cut(stream: Stream) -> bool:
    """Whether an OGG stream's last page (RFC 3533, section 6) is longer than the bytes that are there."""
    longest = 27 + 255 + 255 * 255
    tail = stream.head(longest, max(0, stream.size - longest))
    at = tail.rfind(b"OggS")
    if at < 0:
        return False
    page = tail[at:]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    return len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _ffmpeg_kind(head: bytes) -> str | None:
    """The name of a format that FFmpeg is known to be needed for."""
    if head[4:8] == b"ftyp":
        return "MP4/M4A"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "WebM/Matroska"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "AAC (ADTS)"
    return None


def _reason(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or str(problem)


def fail(code: Code, message: str) -> NoReturn:
    raise ClipFailedError(Stage.DECODE, code, message)
