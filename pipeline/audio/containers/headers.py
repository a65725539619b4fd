"""Files of one header and the audio after it: AU, SPHERE, VOC, AVR, FLAC."""

from __future__ import annotations

import re
import struct

from pipeline.audio.containers.layout import Layout, is_open, missing
from pipeline.audio.stream import Pieces, Stream
from pipeline.errors import Code

FLAC = b"fLaC\0\0\0\x22"


def au(stream: Stream, start: int, head: bytes) -> Layout | None:
    if head[:4] not in (b".snd", b"dns.") or len(head) < 12:
        return None
    order = ">" if head[:4] == b".snd" else "<"
    offset, size = struct.unpack(f"{order}II", head[4:12])
    there = stream.size - start - offset
    if size == 0 or is_open(size, 4, there):
        known = Pieces(stream, range(start, start + 8), b"\xff\xff\xff\xff", range(start + 12, stream.size))
        return Layout(known, stream.size)
    return _plain(stream, start, start + offset + size)


def sphere(stream: Stream, start: int, head: bytes) -> Layout | None:
    if head[:8] != b"NIST_1A\n" or not head[8:16].strip().isdigit():
        return None
    length = int(head[8:16])
    text = stream.head(min(length, 1 << 16), start).decode("latin-1")
    given = dict(re.findall(r"^(\w+) -\w+ (\S+)", text, re.MULTILINE))
    counts = [given.get(name, "") for name in ("sample_count", "channel_count", "sample_n_bytes")]
    if not all(count.isdigit() for count in counts):
        return _plain(stream, start, stream.size)
    samples, channels, width = map(int, counts)
    if "shorten" in given.get("sample_coding", ""):
        whole = stream.part(start, stream.size)
        return Layout(whole, samples=samples, other=True)
    return _plain(stream, start, start + length + samples * channels * width)


def flac(stream: Stream, start: int, head: bytes) -> Layout | None:
    if head[:8] != FLAC:
        return None
    samples = int.from_bytes(stream.head(5, start + 21), "big") & 0xF_FFFF_FFFF
    end = None
    if not samples and (end := stream.find(FLAC, start + 1, stream.size)) < 0:
        end = stream.size
    unopened = Code.TRUNCATED, "the FLAC data end before their first frame does"
    return Layout(stream.part(start, end or stream.size), end, unopened=unopened)


def avr(stream: Stream, start: int, head: bytes) -> Layout | None:
    if head[:4] != b"2BIT":
        return None
    stereo, bits = struct.unpack(">HH", stream.head(4, start + 12).ljust(4, b"\0"))
    samples = int.from_bytes(stream.head(4, start + 26), "big")
    return _plain(stream, start, start + 128 + samples * (2 if stereo else 1) * (bits // 8))


def voc(stream: Stream, start: int, head: bytes) -> Layout | None:
    """libsndfile reads one block of several."""
    if head != b"Creative Voice F":
        return None
    at = start + int.from_bytes(stream.head(2, start + 20), "little")
    lacks, whole = "", stream.part(start, stream.size)
    # sox gives blocks 8 bytes less than they have.
    while at < stream.size - 9 and (kind := stream.head(1, at)) != b"\0":
        size = int.from_bytes(stream.head(3, at + 1), "little")
        at += 4 + size
        if size in (0, 0xFF_FFFF) and kind in b"\1\2\x09":  # written to a pipe
            first = at - size - 3
            known = min(stream.size - first - 3, 0xFF_FFFE).to_bytes(3, "little")
            whole = Pieces(stream, range(start, first), known, range(first + 3, stream.size))
            break
        lacks = missing(size, size + stream.size - at)
    return Layout(whole, None, lambda: lacks, other=True)


def _plain(stream: Stream, start: int, end: int) -> Layout:
    lacks = missing(end - start, stream.size - start, slack=0)
    end = min(end, stream.size)
    return Layout(stream.part(start, end), end, lambda: lacks)
