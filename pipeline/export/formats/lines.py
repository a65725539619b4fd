"""Formats of lines: RTTM, a line a speaker segment; CTM, a line a word; JSONL, a line a clip."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping

from pipeline.corpus.columns import json_text
from pipeline.export.document import Document, identity
from pipeline.export.intervals import Timed, milliseconds, seconds, timed
from pipeline.export.names import field
from pipeline.export.spec import ExportSpec
from pipeline.export.table import Row, Table

_EMBEDDINGS = ("embedding", "embedding_norm")
_PER_FRAME = ("frame_activity", "frame_probabilities")


class Rttm(Document):
    """NIST's Rich Transcription Time Marked: who speaks when."""

    extension = "rttm"
    one_per_clip = False

    @classmethod
    def columns(cls, table: Table, spec: ExportSpec) -> Mapping[str, str]:
        table.require("segments", purpose="rttm")
        return identity("segments")

    @classmethod
    def missing(cls, row: Row) -> str | None:
        return "without segments" if row["segments"] is None else None

    def add(self, row: Row) -> None:
        file = field(row["clip_id"])
        for turn in timed(row["segments"], "speaker"):
            self._write(f"SPEAKER {file} 1 {_span(turn)} <NA> <NA> {field(turn.text)} <NA> <NA>\n")


class Ctm(Document):
    """NIST's Conversation Time Marked: when each word is said."""

    extension = "ctm"
    one_per_clip = False

    @classmethod
    def columns(cls, table: Table, spec: ExportSpec) -> Mapping[str, str]:
        words = "aligned_words" if spec.reference else "words"
        table.require(words, purpose="ctm")
        return identity() | {"words": words}

    @classmethod
    def missing(cls, row: Row) -> str | None:
        return "without words" if row["words"] is None else None

    def add(self, row: Row) -> None:
        file = field(row["clip_id"])
        for word in timed(row["words"], "word"):
            sure = "NA" if word.confidence is None else f"{word.confidence:.3f}"
            self._write(f"{file} 1 {_span(word)} {word.text.replace(' ', '_')} {sure}\n")


class Jsonl(Document):
    """A manifest as NeMo has them: a JSON object a line, without what is null."""

    extension = "jsonl"
    one_per_clip = False
    error_rows = True

    @classmethod
    def columns(cls, table: Table, spec: ExportSpec) -> Mapping[str, str]:
        if spec.embeddings:
            table.require("embedding", purpose="--embeddings")
        names = {"duration_s": "duration"}
        if spec.reference:
            table.require("aligned_words", purpose="--reference")
            names |= {"text": "pred_text", "words": "pred_words"}
            names |= {"ref_text": "text", "aligned_words": "words"}
        dropped = _PER_FRAME if spec.embeddings else (*_PER_FRAME, *_EMBEDDINGS)
        kept = [name for name in table.columns if name not in dropped]
        taken = {names[name] for name in kept if name in names}
        columns = {}
        for column in kept:
            name = names.get(column, column)
            while column not in names and name in taken:
                name = f"ref_{name}"  # as in the table, the input's own column gives way
            taken.add(name)
            columns[name] = column
        return columns

    def add(self, row: Row) -> None:
        values = {name: value for name, value in row.items() if value is not None}
        if isinstance(values.get("extra"), str):
            with contextlib.suppress(ValueError):
                values["extra"] = json.loads(values["extra"])
        self._write(json_text(values) + "\n")


def _span(part: Timed) -> str:
    """Start and duration: both ends are rounded, so that one part's end stays the next one's start."""
    start, end = milliseconds(part.start_s), milliseconds(part.end_s)
    return f"{seconds(start)} {seconds(max(0, end - start))}"
