"""Audacity's labels: start, end and text, between tabs."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.export.document import Content, Document, Write, identity, register
from pipeline.export.intervals import Timed, clean, length_s, milliseconds, timed_parts
from pipeline.export.table import Row, Table


@register
class Audacity(Document):
    """A label a word; of clips without words, the text, or the speakers' turns."""

    name = "audacity"
    extension = "labels.txt"  # `x.txt` beside `x.wav` would be taken for what is said in it
    one_per_clip = True

    def __init__(self, write: Write, *, whole_table: bool) -> None:
        super().__init__(write, whole_table=whole_table)
        self._at_s = 0.0

    @classmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        if content.reference:
            table.require("aligned_words", purpose="audacity of the reference")
            return identity("duration_s") | {"words": "aligned_words", "text": "ref_text"}
        table.require("words", "text", "segments", purpose="audacity")
        return identity("duration_s", "words", "text", "segments")

    @classmethod
    def missing(cls, row: Row) -> str | None:
        nothing = row["words"] is None and row["text"] is None and row.get("segments") is None
        return "without words and segments" if nothing else None

    def add(self, row: Row) -> None:
        for label in self._labels(row):
            times = (_seconds(self._at_s + at) for at in (label.start_s, max(label.start_s, label.end_s)))
            self._write("\t".join([*times, label.text]) + "\n")
        self._at_s += length_s(row)

    def _labels(self, row: Row) -> list[Timed]:
        if words := timed_parts(row["words"], "word"):
            return words
        if text := clean(str(row["text"] or "")):
            return [Timed(0.0, length_s(row), text)]
        return timed_parts(row.get("segments"), "speaker")


def _seconds(at: float) -> str:
    """With the six decimals that Audacity writes."""
    return f"{milliseconds(at) / 1000:.6f}"
