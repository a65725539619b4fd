"""Formats as their framing shows them: where a file's audio is, and whether all of it is there."""

from __future__ import annotations

from pipeline.audio.containers import chunks, headers, mpeg, ogg, trees
from pipeline.audio.containers.layout import Layout
from pipeline.audio.containers.mpeg import after_tags
from pipeline.audio.stream import Stream

__all__ = ["Layout", "beginning", "following", "layout", "left_over"]

_READERS = (
    chunks.layout,
    mpeg.layout,
    trees.mp4,
    trees.matroska,
    headers.flac,
    headers.au,
    headers.sphere,
    headers.voc,
    headers.avr,
)
_READ_AHEAD = 1 << 16  # bytes that libFLAC may have read beyond the end of a file


def layout(stream: Stream, start: int, *, whole: bool = True) -> Layout:
    """Of the file that begins at `start`; `whole`: all of it is going to be read."""
    return _known(stream, start, whole=whole) or Layout(stream.part(start, stream.size))


def beginning(stream: Stream) -> int:
    """Where the first file of audio begins: behind tags, padding, and before MPEG audio anything."""
    start = after_tags(stream, 0)
    at = following(stream, start)
    if at is None:
        at = mpeg.search(stream, start)
    return start if at is None else at


def following(stream: Stream, end: int) -> int | None:
    """Where another file of audio begins behind the end of one, and the tags there."""
    for at in dict.fromkeys((end, after_tags(stream, end, padding=True))):
        if at < stream.size and _known(stream, at):
            return at
    return None


def left_over(stream: Stream, start: int, end: int, format: str) -> tuple[int | None, bool]:
    """Behind a file of frames: where the next file begins, or whether frames are left that were not counted.

    Args:
        end: how far the decoder has read when it had all that the header counts.
    """
    if format == "MP3":
        return mpeg.following(stream, end)
    if format != "FLAC":
        return None, False
    at = stream.find(headers.FLAC, max(start + 1, end - _READ_AHEAD), stream.size)
    return (at, False) if at >= 0 else (None, after_tags(stream, end, padding=True) < stream.size)


def _known(stream: Stream, start: int, *, whole: bool = True) -> Layout | None:
    head = stream.head(16, start)
    for reader in _READERS:
        if (found := reader(stream, start, head)) is not None:
            return found
    return ogg.layout(stream, start, head, whole=whole)
