"""Files of chunks, a name and a size before the bytes of each: WAV, RF64, W64, AIFF, CAF, AVI and others."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from pipeline.audio.containers import mpeg
from pipeline.audio.containers.layout import Layout, is_open, missing
from pipeline.audio.stream import Pieces, Stream
from pipeline.errors import Code

_LONGEST_FMT = 4096
_UNCODED = (b"\1\0", b"\3\0", b"\xfe\xff")  # PCM, float, and either of them
_SHORTEST = 512  # bytes after an empty audio chunk that may be audio of a size nobody wrote
_ASF_DATA = b"6&\xb2u"  # the first bytes of a GUID


@dataclass(frozen=True)
class _Kind:
    """One such format.

    Attributes:
        audio: name of the chunk that holds the audio.
        first: bytes of the file before its first chunk.
        names, sizes: bytes of a chunk's name and of its size.
        counts_itself: a chunk's size counts its name and size.
        align: chunks begin at multiples of this.
        before: bytes of the audio's chunk before the audio.
        mended: whether soundfile is given another header where this one does not tell where the audio is.
    """

    audio: bytes
    order: Literal["little", "big"] = "little"
    first: int = 12
    names: int = 4
    sizes: int = 4
    counts_itself: bool = False
    align: int = 2
    before: int = 0
    mended: bool = True

    @property
    def header(self) -> int:
        return self.names + self.sizes


_WAV = _Kind(b"data")
_WAV_BIG = _Kind(b"data", "big")
_W64 = _Kind(b"data", first=40, names=16, sizes=8, counts_itself=True, align=8)
_AIFF = _Kind(b"SSND", "big", before=8)
_SVX = _Kind(b"BODY", "big")
_CAF = _Kind(b"data", "big", first=8, sizes=8, align=1, before=4)
_AVI = _Kind(b"LIST", mended=False)
_MAT5 = _Kind(b"\x0e\0\0\0", first=128, align=1, mended=False)
_ASF = _Kind(_ASF_DATA, first=0, names=16, sizes=8, counts_itself=True, align=1, mended=False)
_RIFF = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_GUID = b"riff\x2e\x91\xcf\x11"


def _kind(head: bytes) -> _Kind | None:
    magic, form = head[:4], head[8:12]
    if magic in _RIFF:
        wav = _WAV_BIG if magic == b"RIFX" else _WAV
        return {b"WAVE": wav, b"AVI ": _AVI}.get(form)
    if magic == b"FORM":
        return {b"AIFF": _AIFF, b"AIFC": _AIFF, b"8SVX": _SVX, b"16SV": _SVX}.get(form)
    if head[:8] == _GUID:
        return _W64
    if magic == b"caff":
        return _CAF
    if head[:4] == b"0&\xb2u":
        return _ASF
    return _MAT5 if head[:10] == b"MATLAB 5.0" else None


@dataclass
class _Chunk:
    name: bytes
    start: int  # of what is in it
    size: int


@dataclass
class _Found:
    """What a walk over a file's chunks finds."""

    end: int
    fmt: bytes = b""
    fact: int = 0  # samples that were encoded
    audio: list[range] = field(default_factory=list)
    size_at: int = 0  # where the first audio chunk gives its size
    open: bool = False
    odd: bool = False  # decoders would not find all of the audio
    lacks: str = ""


def layout(stream: Stream, start: int, head: bytes) -> Layout | None:
    kind = _kind(head)
    if kind is None:
        return None
    found = _walk(stream, start, kind, head[:4])
    mended = stream.part(start, found.end)
    if kind.mended and (found.open or found.odd or len(found.audio) > 1):
        if kind in (_WAV, _WAV_BIG, _W64):
            mended = _as_wav(stream, kind, found)
        else:
            mended = _with_size(stream, start, kind, found)
    counted = any(mpeg.counts(stream, audio.start) for audio in found.audio[:1])  # MP3 in WAV
    unopened = None
    if kind.mended and not found.audio:
        name = kind.audio.decode()
        unopened = Code.UNDECODABLE, f"the file has no chunk {name!r}, which would hold its audio"
    elif found.fmt and not any(found.fmt[4:8]):
        unopened = Code.BAD_SAMPLE_RATE, "the header gives a sample rate of 0 Hz"
    meant = 0 if found.open or found.fmt[:2] in _UNCODED else found.fact
    return Layout(mended, found.end, lambda: found.lacks, counted, meant=meant, unopened=unopened)


def _walk(stream: Stream, start: int, kind: _Kind, magic: bytes) -> _Found:
    found = _Found(stream.size)
    for chunk, odd in _chunks(stream, start + kind.first, kind):
        if chunk.name == magic and chunk.start - kind.header > start:  # another file begins
            break
        found.odd |= odd and not found.audio
        if chunk.name == kind.audio or chunk.start + chunk.size <= stream.size:
            found.end = min(chunk.start + chunk.size, stream.size)
        there = stream.size - chunk.start
        if chunk.name == kind.audio:
            if not found.audio:
                found.size_at = chunk.start - kind.sizes
                found.open = kind.mended and _is_open(stream, chunk, kind)
            size = there if found.open else min(chunk.size, there)
            found.audio.append(range(chunk.start + kind.before, chunk.start + max(size, kind.before)))
            if found.open:
                found.end = stream.size
                break
            if not is_open(chunk.size, _width(chunk, kind), there):
                found.lacks = found.lacks or missing(chunk.size, there)
        elif chunk.name == b"fmt " and chunk.size <= _LONGEST_FMT:
            found.fmt = stream.head(chunk.size, chunk.start)
        elif chunk.name == b"fact":
            found.fact = int.from_bytes(stream.head(min(chunk.size, 8), chunk.start), kind.order)
    if not found.audio:
        found.end = stream.size
    return found


def _chunks(stream: Stream, at: int, kind: _Kind) -> Iterator[tuple[_Chunk, bool]]:
    """Each chunk, and whether one before it lacks its padding. The walk ends where no chunk begins."""
    long, odd = 0, False
    while at + kind.header <= stream.size:
        head = stream.head(kind.header + 16, at)
        name, size = head[: min(kind.names, 4)], int.from_bytes(head[kind.names : kind.header], kind.order)
        if kind.audio.isalnum() and not (name.isascii() and name.decode().isprintable()):
            return
        if name == b"ds64":
            long = int.from_bytes(head[16:24], "little")
        if name == b"data" and size == 0xFFFF_FFFF and long:
            size = long
        if kind.counts_itself:
            size = max(size - kind.header, 0)
        yield _Chunk(name, at + kind.header, size), odd
        at += kind.header + size
        if pad := -size % kind.align:
            # Some writers leave the padding out; where it is, it is zero.
            bare = kind.align == 2 and stream.head(1, at) not in (b"\0", b"")
            odd, at = odd or bare, at if bare else at + pad


def _width(chunk: _Chunk, kind: _Kind) -> int:
    """Bytes that hold the chunk's size: RF64's are elsewhere."""
    return 8 if chunk.size >> 32 else kind.sizes


def _is_open(stream: Stream, audio: _Chunk, kind: _Kind) -> bool:
    """Whether the size of the audio was not known when it was written."""
    there = stream.size - audio.start
    if audio.size > kind.before or there <= _SHORTEST:
        return is_open(audio.size, _width(audio, kind), there)
    # Nothing, by the header: so it is where chunks follow, up to the end of the file.
    end = 0
    for chunk, _ in _chunks(stream, audio.start + audio.size, kind):
        end = chunk.start + chunk.size
    return not 0 <= end - stream.size <= 1


def _as_wav(stream: Stream, kind: _Kind, found: _Found) -> Stream:
    """The same audio under a header that tells its size; of more than 4 GiB, as RF64."""
    order = ">" if kind.order == "big" else "<"
    size = sum(map(len, found.audio))
    fmt = struct.pack(f"{order}4sI", b"fmt ", len(found.fmt)) + found.fmt + bytes(len(found.fmt) % 2)
    total = 20 + len(fmt) + size
    if total <= 0xFFFF_FFFF:
        header = struct.pack(f"{order}4sI4s", b"RIFX" if order == ">" else b"RIFF", total - 8, b"WAVE")
        return Pieces(stream, header + fmt + struct.pack(f"{order}4sI", b"data", size), *found.audio)
    header = struct.pack("<4sI4s4sIQQQI", b"RF64", 0xFFFF_FFFF, b"WAVE", b"ds64", 28, total + 28, size, 0, 0)
    return Pieces(stream, header + fmt + struct.pack("<4sI", b"data", 0xFFFF_FFFF), *found.audio)


def _with_size(stream: Stream, start: int, kind: _Kind, found: _Found) -> Stream:
    """The same file, its first audio chunk with all of the bytes after it."""
    body = range(found.audio[0].start, found.audio[-1].stop)
    size = (kind.before + len(body)).to_bytes(kind.sizes, kind.order)
    return Pieces(stream, range(start, found.size_at), size, range(found.size_at + kind.sizes, body.stop))
