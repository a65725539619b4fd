"""MPEG audio: frames with a header each, tags around them, and a first frame that may count the others."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.audio.containers.layout import Layout, missing
from pipeline.audio.stream import Stream

_PADDING = 4  # frames at the end of a file that encoders fill up with silence, at the most
_SEARCHED = 1 << 16
_RATES = (44100, 48000, 32000)
_KILOBITS = {  # by version 1 or later, and layer
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class Frame(NamedTuple):
    size: int  # bytes, the header among them
    samples: int
    layer: int
    side: int  # bytes between the header and where a layer III frame may count the others


def frame(head: bytes) -> Frame | None:
    """The frame that begins with these four bytes; None where none does, and of free format."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    first = version == 3
    hertz = _RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    kilobits = _KILOBITS[first, layer][bits]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return Frame((12_000 * kilobits // hertz + padding) * 4, 384, layer, 0)
    mono = head[3] >> 6 == 3
    side = (17 if mono else 32) if first else (9 if mono else 17)
    samples = 1152 if first or layer == 2 else 576
    return Frame(samples * 125 * kilobits // hertz + padding, samples, layer, side)


def layout(stream: Stream, start: int, head: bytes) -> Layout | None:
    first = frame(head)
    if first is None or not begins(stream, start):
        return None
    tag = stream.head(16, start + 4 + first.side)
    counted = counts(stream, start)
    size = int.from_bytes(tag[12:16], "big") if counted and tag[7] & 2 else 0
    samples = None
    if (vbri := stream.head(18, start + 36))[:4] == b"VBRI":  # Fraunhofer's header, which libsndfile misses
        samples = max(0, int.from_bytes(vbri[14:18], "big") - 2) * first.samples  # a frame or two too high
    lacks = missing(size, stream.size - start)
    return Layout(stream.part(start, stream.size), None, lambda: lacks, counted, samples)


def begins(stream: Stream, at: int, frames: int = 2) -> bool:
    """Whether so many frames, or all up to the end, begin here."""
    for number in range(frames):
        head = stream.head(4, at)
        if number and len(head) < 4:
            return at <= stream.size
        if (found := frame(head)) is None:
            return False
        at += found.size
    return True


def search(stream: Stream, start: int) -> int | None:
    """Where frames follow on one another, in the first 64 KiB."""
    data = stream.head(_SEARCHED, start)
    at = data.find(b"\xff")
    while at >= 0 and not (frame(data[at : at + 4]) and begins(stream, start + at, frames=4)):
        at = data.find(b"\xff", at + 1)
    return None if at < 0 else start + at


def counts(stream: Stream, at: int) -> bool:
    """Whether the first frame counts the others (Xing's and LAME's header)."""
    first = frame(stream.head(4, at))
    if first is None or first.layer != 3:
        return False
    tag = stream.head(12, at + 4 + first.side)
    return tag[:4] in (b"Xing", b"Info") and bool(tag[7] & 1) and int.from_bytes(tag[8:12], "big") > 0


def following(stream: Stream, at: int) -> tuple[int | None, bool]:
    """Behind the frames that a header counts: where another such header is, or whether frames are left."""
    at = after_tags(stream, at, padding=True)
    for _ in range(_PADDING):
        if counts(stream, at):
            return at, False
        padding = frame(stream.head(4, at))
        if padding is None or not begins(stream, at):
            return None, search(stream, at) is not None
        at = after_tags(stream, at + padding.size, padding=True)
    return None, begins(stream, at)


def interrupted(stream: Stream) -> int | None:
    """Where neither a frame nor a tag nor padding stands, with more frames behind; it begins with a frame."""
    at = 0
    while at < stream.size:
        found = frame(stream.head(4, at))
        behind = at + found.size if found else after_tags(stream, at, padding=True)
        if behind == at:
            return at if at and search(stream, at) is not None else None
        at = behind
    return None


def is_cut(packet: bytes) -> bool:
    """Whether a frame begins here, of MPEG audio or ADTS, that is longer than these bytes."""
    if packet[:1] == b"\xff" and packet[1:2] > b"\xef" and not packet[1] & 6 and len(packet) > 5:
        size = (packet[3] & 3) << 11 | packet[4] << 3 | packet[5] >> 5
        return size > len(packet)
    first = frame(packet[:4])
    return first is not None and first.size > len(packet)


def after_tags(stream: Stream, at: int, *, padding: bool = False) -> int:
    """The offset behind the ID3, APE and Lyrics3 tags that begin here; `padding`: and behind zeros."""
    while at < stream.size:
        head = stream.head(32, at)
        if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 0x80:
            size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            at += 10 + size + (10 if head[5] & 0x10 else 0)
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            size = int.from_bytes(head[12:16], "little")
            at += 32 + (size if head[23] & 0x20 else 0)  # of a header; a footer ends its tag
        elif head[:3] == b"TAG":
            at += 128
        elif head[:11] == b"LYRICSBEGIN":
            last = stream.find(b"LYRICS200", at, at + (1 << 20))
            at = stream.size if last < 0 else last + 9
        elif padding and head[:1] == b"\0":
            zeros = stream.head(1 << 16, at)
            at += len(zeros) - len(zeros.lstrip(b"\0"))
        else:
            return at
    return stream.size
