"""MP4's boxes and Matroska's elements: where the outermost of them end."""

from __future__ import annotations

from pipeline.audio.containers.layout import Layout
from pipeline.audio.stream import Stream

_SEGMENT, _CLUSTER, _EBML = 0x18538067, 0x1F43B675, 0x1A45DFA3


def mp4(stream: Stream, start: int, head: bytes) -> Layout | None:
    if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return None
    at, end, seen, lacks = start, stream.size, set(), ""
    while at + 8 <= stream.size:
        box = stream.head(16, at)
        size, name = int.from_bytes(box[:4], "big"), box[4:8]
        if name == b"ftyp" and b"moov" in seen:  # another file begins
            end = at
            break
        if not name.isalnum() and not name.strip().isalnum():
            break
        seen.add(name)
        if size == 1:
            size = int.from_bytes(box[8:16], "big")
        if size == 0:
            break
        if at + size > stream.size:
            lacks = f"the last part of the MP4 ({name.decode()}) lacks {at + size - stream.size} bytes"
        at += max(size, 8)
    if b"moov" not in seen:
        lacks = lacks or "the MP4 lacks its index (moov), which is written at the end"
    whole = stream.part(start, end)
    return Layout(whole, end, lambda: lacks)


def matroska(stream: Stream, start: int, head: bytes) -> Layout | None:
    if int.from_bytes(head[:4], "big") != _EBML:
        return None
    at, unknown = start, False
    while (element := _element(stream, at)) is not None:
        name, body, size = element
        unknown = size is None
        if unknown or (name == _EBML and at > start):
            break
        at = body + (size or 0)
    if unknown:
        whole = stream.part(start, stream.size)
        return Layout(whole, None, lambda: _lacks(stream, _last(stream, at)))
    end = min(at, stream.size)
    whole = stream.part(start, end)
    return Layout(whole, end, lambda: _lacks(stream, at))


def _lacks(stream: Stream, end: int) -> str:
    return f"the last part of the Matroska lacks {end - stream.size} bytes" if end > stream.size else ""


def _last(stream: Stream, at: int) -> int:
    """Where the last element ends of a segment of unknown size, as written to a pipe."""
    while (element := _element(stream, at)) is not None:
        name, body, size = element
        at = body if size is None or name == _CLUSTER else body + size
    return at


def _element(stream: Stream, at: int) -> tuple[int, int, int | None] | None:
    """(id, where its content begins, its size or None for unknown); None where no element begins."""
    head = stream.head(12, at)
    if not head or not head[0]:
        return None
    name = 9 - head[0].bit_length()
    if name > 4 or len(head) <= name or not head[name]:
        return None
    width = 9 - head[name].bit_length()
    size = int.from_bytes(head[name : name + width], "big") & (1 << 7 * width) - 1
    unknown = size == (1 << 7 * width) - 1
    return int.from_bytes(head[:name], "big"), at + name + width, None if unknown else size
