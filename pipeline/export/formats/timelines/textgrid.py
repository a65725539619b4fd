"""Praat TextGrid, long text format: a tier of words, and one of each speaker's turns.

Its header counts what follows, so each tier is put aside (on disk, once it is large) until the last clip.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.clip_names import encode_field
from pipeline.export.document import Write, register
from pipeline.export.formats.timelines.spool import Spool
from pipeline.export.formats.timelines.tiers import Tiers
from pipeline.export.intervals import (
    Interval,
    Timed,
    lay_out,
    length_s,
    milliseconds,
    seconds,
    timed_parts,
    turns_by_speaker,
)
from pipeline.export.table import Row


@register
class TextGrid(Tiers):
    """Tiers without gaps over one timeline; the whole table's has a tier that names the clips, too."""

    name = "textgrid"
    extension = "TextGrid"
    needs_a_clip = True

    def __init__(self, write: Write, *, whole_table: bool) -> None:
        super().__init__(write, whole_table=whole_table)
        self._clips = _Tier("clips")
        self._words = _Tier("words")
        self._speakers: dict[str, _Tier] = {}

    def add(self, row: Row) -> None:
        length = length_s(row)
        if self._whole_table:
            self._clips.extend(
                lay_out([Timed(0.0, length, encode_field(row["clip_id"]))], self._at_s, length)
            )
        self._words.extend(lay_out(timed_parts(row["words"], "word"), self._at_s, length))
        for speaker, turns in turns_by_speaker(row).items():
            tier = self._speakers.setdefault(speaker, _Tier(speaker))
            tier.extend(lay_out(turns, self._at_s, length))
        self._at_s += length

    def finish(self) -> None:
        end = milliseconds(self._at_s)
        tiers = [self._words, *(self._speakers[name] for name in sorted(self._speakers))]
        if self._whole_table:
            tiers.insert(0, self._clips)
        self._write(
            'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
            f"xmin = 0\nxmax = {seconds(end)}\ntiers? <exists>\nsize = {len(tiers)}\nitem []:\n"
        )
        for number, tier in enumerate(tiers, 1):
            tier.write(number, end, self._write)


class _Tier:
    """An interval tier in the making."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._body = Spool()
        self._count = self._end = 0

    def extend(self, intervals: Iterable[Interval]) -> None:
        """Adds intervals after those it has; the gaps become empty ones."""
        for interval in intervals:
            if interval.start > self._end:
                self._add(self._end, interval.start, "")
            self._add(interval.start, interval.end, interval.text)

    def write(self, number: int, end: int, write: Write) -> None:
        if end > self._end:
            self._add(self._end, end, "")
        write(
            f'    item [{number}]:\n        class = "IntervalTier"\n        name = {_quoted(self._name)}\n'
            f"        xmin = 0\n        xmax = {seconds(end)}\n        intervals: size = {self._count}\n"
        )
        self._body.give(write)

    def _add(self, start: int, end: int, text: str) -> None:
        self._count += 1
        self._end = end
        self._body.add(
            f"        intervals [{self._count}]:\n            xmin = {seconds(start)}\n"
            f"            xmax = {seconds(end)}\n            text = {_quoted(text)}\n"
        )


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
