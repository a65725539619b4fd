"""Subtitles: words grouped into cues that can be read, as SRT and as WebVTT."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from pipeline.clip_names import encode_field
from pipeline.export.document import Content, Document, Write, identity, register
from pipeline.export.intervals import Interval, clean, lay_out, length_s, milliseconds, timed_parts
from pipeline.export.table import Row, Table

LINE_CHARACTERS = 42
CUE_MS = 7000
PAUSE_MS = 800
_ARROW = re.compile("-{2,}>")  # SubRip cannot escape what stands between times


class _Subtitles(Document):
    one_per_clip = True

    def __init__(self, write: Write, *, whole_table: bool) -> None:
        super().__init__(write, whole_table=whole_table)
        self._at_s = 0.0

    @classmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        if content.reference:
            table.require("aligned_words", purpose=f"{cls.extension} of the reference")
            return identity("duration_s") | {"words": "aligned_words", "text": "ref_text"}
        table.require("words", "text", purpose=cls.extension)
        return identity("duration_s", "words", "text")

    @classmethod
    def missing(cls, row: Row) -> str | None:
        if row["words"] is None and not isinstance(row["text"], str):
            return "without text"
        if not row["words"] and row["text"] and not length_s(row):
            return "without words and duration"
        return None

    def _cues(self, row: Row) -> Iterator[Interval]:
        """The clip's cues on the timeline, which goes on after it."""
        length = length_s(row)
        words = timed_parts(row["words"], "word")
        if words:
            yield from cues(lay_out(words, self._at_s, length))
        elif text := clean(str(row["text"] or "")):
            whole = Interval(milliseconds(self._at_s), milliseconds(self._at_s + length), text)
            yield Interval(whole.start, max(whole.end, whole.start + 1), text)
        self._at_s += length


@register
class Srt(_Subtitles):
    """SubRip: numbered cues."""

    name = extension = "srt"

    def __init__(self, write: Write, *, whole_table: bool) -> None:
        super().__init__(write, whole_table=whole_table)
        self._number = 0

    def add(self, row: Row) -> None:
        for cue in self._cues(row):
            self._cue(cue)

    def finish(self) -> None:
        """A file without a cue is one that players refuse; they show nothing of one that has no text."""
        if self._number == 0:
            self._cue(Interval(0, max(1, milliseconds(self._at_s)), ""))

    def _cue(self, cue: Interval) -> None:
        self._number += 1
        times = f"{clock(cue.start, ',')} --> {clock(cue.end, ',')}"
        text = _ARROW.sub("->", cue.text)
        self._write("\n".join([str(self._number), times, *filter(None, lines(text))]) + "\n\n")


@register
class Vtt(_Subtitles):
    """WebVTT, with a note that names each clip."""

    name = extension = "vtt"

    def __init__(self, write: Write, *, whole_table: bool) -> None:
        super().__init__(write, whole_table=whole_table)
        write("WEBVTT\n\n")

    def add(self, row: Row) -> None:
        self._write(f"NOTE {encode_field(row['clip_id'])}\n\n")
        for cue in self._cues(row):
            times = f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}"
            text = [_escaped(line) for line in lines(cue.text)]
            self._write("\n".join([times, *text]) + "\n\n")


def cues(words: Sequence[Interval]) -> Iterator[Interval]:
    """Words in time order as cues: a pause ends one, and so do two full lines and seven seconds."""
    held: list[Interval] = []
    for word in words:
        if held:
            text = " ".join([*(before.text for before in held), word.text])
            pause = word.start - held[-1].end > PAUSE_MS
            if pause or word.end - held[0].start > CUE_MS or _two_lines(text) is None:
                yield _cue(held)
                held = []
        held.append(word)
    if held:
        yield _cue(held)


def lines(text: str) -> list[str]:
    """One line, else two of similar length; more only where one word or a text without times needs them."""
    fitting = _two_lines(text)
    if fitting is None:
        return textwrap.wrap(text, LINE_CHARACTERS, break_on_hyphens=False)
    return fitting


def clock(milliseconds: int, mark: str) -> str:
    """hh:mm:ss and milliseconds after `mark`."""
    rest, thousandths = divmod(milliseconds, 1000)
    return f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}{mark}{thousandths:03}"


def _cue(words: Sequence[Interval]) -> Interval:
    return Interval(words[0].start, words[-1].end, " ".join(word.text for word in words))


def _two_lines(text: str) -> list[str] | None:
    """`text` in at most two lines that are short enough, else None."""
    if len(text) <= LINE_CHARACTERS:
        return [text]
    middle = len(text) // 2
    spaces = [at for at in (text.rfind(" ", 0, middle), text.find(" ", middle)) if at > 0]
    splits = [[text[:at], text[at + 1 :]] for at in spaces]  # the best is one of the two around the middle
    best = min(splits, key=lambda split: max(map(len, split)), default=[text])
    return best if max(map(len, best)) <= LINE_CHARACTERS else None


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
