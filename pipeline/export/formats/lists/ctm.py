"""CTM: a line a word."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.clip_names import encode_field
from pipeline.export.document import Content, Document, identity, register
from pipeline.export.intervals import start_and_duration, timed_parts
from pipeline.export.table import Row, Table


@register
class Ctm(Document):
    """NIST's Conversation Time Marked: when each word is said."""

    name = extension = "ctm"
    one_per_clip = False

    @classmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        words = "aligned_words" if content.reference else "words"
        table.require(words, purpose="ctm")
        return identity() | {"words": words}

    @classmethod
    def missing(cls, row: Row) -> str | None:
        return "without words" if row["words"] is None else None

    def add(self, row: Row) -> None:
        file = encode_field(row["clip_id"])
        for word in timed_parts(row["words"], "word"):
            known = word.confidence is not None and math.isfinite(word.confidence)
            sure = f"{word.confidence:.3f}" if known else "NA"
            self._write(f"{file} 1 {start_and_duration(word)} {word.text.replace(' ', '_')} {sure}\n")
