"""docs/table.md names the columns that pipeline/schema.py and the tasks declare, in order and with types."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from pipeline import schema
from pipeline.tasks.classify import LABEL_COLUMNS
from pipeline.tasks.diarize import DIARIZATION_COLUMNS, PROBABILITY_COLUMNS
from pipeline.tasks.embed import embedding_columns
from pipeline.tasks.transcribe import ALIGNMENT_COLUMNS, NBEST_COLUMNS, TRANSCRIPT_COLUMNS

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "table.md").read_text(encoding="utf-8")


def word_for(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"fixed_size_list of {word_for(kind.value_type)}"
    if pa.types.is_list(kind):
        return f"list of {word_for(kind.value_type)}"
    return "struct" if pa.types.is_struct(kind) else str(kind)


def test_columns_and_types_as_declared() -> None:
    declared = []
    annotations = {
        **TRANSCRIPT_COLUMNS,
        **NBEST_COLUMNS,
        **ALIGNMENT_COLUMNS,
        **LABEL_COLUMNS,
        **DIARIZATION_COLUMNS,
        **PROBABILITY_COLUMNS,
        **embedding_columns(4),
    }
    for field in schema.output_schema(pa.schema([]), annotations):
        declared.append((field.name, word_for(field.type)))
        fields, mark = field.type, "."
        if pa.types.is_list(fields):
            fields, mark = fields.value_type, "[]."
        if pa.types.is_struct(fields):
            declared += [(f"{field.name}{mark}{part.name}", word_for(part.type)) for part in fields]
    documented = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", DOCUMENT, re.MULTILINE)
    assert documented == declared
