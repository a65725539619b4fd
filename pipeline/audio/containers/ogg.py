"""Ogg (RFC 3533): pages of logical streams, and files of it one after another (chained)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.audio.containers.layout import Layout
from pipeline.audio.stream import Stream

_LONGEST = 27 + 255 + 255 * 255
_FIRST, _LAST = 2, 4  # flags: the page begins, ends its logical stream


class _Page(NamedTuple):
    start: int
    stop: int
    flags: int
    serial: bytes


def layout(stream: Stream, start: int, head: bytes, *, whole: bool) -> Layout | None:
    """Of the link that begins here.

    Args:
        whole: all of it is going to be read. If not, the pages between its ends are not looked at, unless the
            ends belong to different streams.
    """
    if head[:4] != b"OggS":
        return None
    if not whole:
        ends = _tail(stream)
        if ends and ends[-1].serial in {page.serial for page in _beginnings(stream, start)}:
            tail = ends[-1]
            return Layout(stream.part(start, stream.size), stream.size, lambda: _lacks(stream, tail))
    last: _Page | None = None
    stop, begun = stream.size, False
    for page in _pages(stream, start):
        if page.flags & _FIRST and begun:
            stop = page.start
            break
        begun = begun or not page.flags & _FIRST
        last = page
    link = stream.part(start, min(last.stop, stop) if last else stop)
    return Layout(link, stop, lambda: _lacks(stream, last))


def _lacks(stream: Stream, last: _Page | None) -> str:
    if last is None or last.stop > stream.size:
        return "the Ogg data end in the middle of a page"
    return "" if last.flags & _LAST else "the Ogg data end without the page that is marked as the last"


def _beginnings(stream: Stream, start: int) -> Iterator[_Page]:
    for page in _pages(stream, start):
        if not page.flags & _FIRST:
            return
        yield page


def _tail(stream: Stream) -> list[_Page]:
    start = max(0, stream.size - _LONGEST)
    at = stream.find(b"OggS", start, stream.size)
    return list(_pages(stream, at)) if at >= 0 else []


def _pages(stream: Stream, at: int) -> Iterator[_Page]:
    """From `at` on; bytes between pages are passed over."""
    while 0 <= at < stream.size:
        head = stream.head(27 + 255, at)
        if head[:4] != b"OggS":
            at = stream.find(b"OggS", at + 1, stream.size)
            continue
        if len(head) < 27 or len(head) < 27 + head[26]:
            yield _Page(at, stream.size + 1, 0, b"")
            return
        stop = at + 27 + head[26] + sum(head[27 : 27 + head[26]])
        yield _Page(at, stop, head[5], head[14:18])
        at = stop
