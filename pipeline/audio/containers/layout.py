"""What the framing of a file tells before any of it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.audio.stream import Stream
from pipeline.errors import Code


@dataclass(frozen=True)
class Layout:
    """One file of audio; another may follow it in the same bytes.

    Attributes:
        stream: what a decoder is given: mended where the header leaves the length open.
        end: the offset where the file ends by its framing; None: only its decoder can tell.
        lacks: what is known to be missing of it, for a person; "" where nothing is.
        counted: of MPEG audio: whether its header counts the samples.
        samples: how many the header counts, where FFmpeg does not compare them.
        meant: how many, of those in the blocks of a codec, where libsndfile gives all: the last is filled up.
        other: libsndfile does not read it, or not all of it.
        unopened: what it means if no decoder opens it, and why, for a person.
    """

    stream: Stream
    end: int | None = None
    lacks: Callable[[], str] = str
    counted: bool = False
    samples: int | None = None
    meant: int = 0
    other: bool = False
    unopened: tuple[Code, str] | None = None


def missing(claimed: int, there: int, slack: int = 128) -> str:
    """What to say of a header that gives `claimed` bytes of audio; some writers count the header itself."""
    if claimed - there <= slack:
        return ""
    return f"the header gives {claimed} bytes of audio, {claimed - there} are missing"


def is_open(size: int, width: int, there: int) -> bool:
    """Whether a size of `width` bytes stands for "unknown", as writers to a pipe leave it."""
    if size <= there:
        return False
    if width == 8:
        return size >= 1 << 62
    # sox writes 0x7F000000 and 0x7FFFF000, ffmpeg 0xFFFFFFFF, others what is left of those after headers.
    return 0x7EFF_0000 <= size < 0x8001_0000 or size >= 0xFFFF_0000
