"""JSONL: a line a clip."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.corpus.columns import json_text
from pipeline.export.document import Content, Document, register
from pipeline.export.table import Row, Table

_EMBEDDINGS = ("embedding", "embedding_norm")
_LINE_END = re.compile("[\x85\u2028\u2029]")  # JSON leaves them as they are; some readers of lines do not
_PER_FRAME = ("frame_activity", "frame_probabilities")


@register
class Jsonl(Document):
    """A manifest as NeMo has them: a JSON object a line, without what is null."""

    name = extension = "jsonl"
    one_per_clip = False
    error_rows = True
    holds_embeddings = True

    @classmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        if content.embeddings:
            table.require("embedding", purpose="--embeddings")
        names = {"duration_s": "duration"}
        if content.reference:
            table.require("aligned_words", purpose="--reference")
            names |= {"text": "pred_text", "words": "pred_words"}
            names |= {"ref_text": "text", "aligned_words": "words"}
        dropped = _PER_FRAME if content.embeddings else (*_PER_FRAME, *_EMBEDDINGS)
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
            with contextlib.suppress(ValueError, RecursionError):
                values["extra"] = json.loads(values["extra"])
        self._write(json_line(values))


def json_line(values: Mapping[str, Any]) -> str:
    """An object in one line, whatever a reader takes for a line's end."""
    return _LINE_END.sub(lambda end: f"\\u{ord(end[0]):04x}", json_text(dict(values))) + "\n"
