"""What formats of tiers read of a clip: its words, and the turns of its speakers."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.export.document import Content, Document, Write, identity
from pipeline.export.intervals import length_s, milliseconds
from pipeline.export.table import Row, Table


class Tiers(Document):
    one_per_clip = True

    def __init__(self, write: Write, *, whole_table: bool) -> None:
        super().__init__(write, whole_table=whole_table)
        self._at_s = 0.0

    @classmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        words = "aligned_words" if content.reference else "words"
        if content.reference:
            table.require(words, purpose=f"{cls.name} of the reference")
        table.require(words, "segments", purpose=cls.name)
        return identity("duration_s", "segments") | {"words": words}

    @classmethod
    def missing(cls, row: Row) -> str | None:
        if row["words"] is None and row["segments"] is None:
            return "without words and segments"
        return None if milliseconds(length_s(row)) else "without duration"
