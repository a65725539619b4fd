"""RTTM: a line a speaker's turn."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.clip_names import encode_field
from pipeline.export.document import Content, Document, identity, register
from pipeline.export.intervals import start_and_duration, timed_parts
from pipeline.export.table import Row, Table


@register
class Rttm(Document):
    """NIST's Rich Transcription Time Marked: who speaks when."""

    name = extension = "rttm"
    one_per_clip = False

    @classmethod
    def refusal(cls, content: Content) -> str | None:
        speakers_only = "reference: rttm holds speakers, no words" if content.reference else None
        return super().refusal(content) or speakers_only

    @classmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        table.require("segments", purpose="rttm")
        return identity("segments")

    @classmethod
    def missing(cls, row: Row) -> str | None:
        return "without segments" if row["segments"] is None else None

    def add(self, row: Row) -> None:
        file = encode_field(row["clip_id"])
        for turn in timed_parts(row["segments"], "speaker"):
            self._write(
                f"SPEAKER {file} 1 {start_and_duration(turn)} <NA> <NA> {encode_field(turn.text)} <NA> <NA>\n"
            )
