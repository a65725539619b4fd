"""The examples in docs/export.md are what the export writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.export.formats import FORMATS
from pipeline.export.job import export
from pipeline.export.spec import ExportSpec
from pipeline.schema import output_schema
from pipeline.tasks.diarize import DIARIZATION_COLUMNS
from pipeline.tasks.transcribe import TRANSCRIPT_COLUMNS

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
SHARD = "webdataset/shard-000000.tar"
CLIP = {"shard": f"/data/{SHARD}", "sample_rate": 16000, "channels": 1}


def spoken(*words: tuple[str, float, float, float]) -> list[dict[str, Any]]:
    return [{"word": w, "start_s": s, "end_s": e, "confidence": c} for w, s, e, c in words]


ROWS: list[dict[str, Any]] = [
    {
        "clip_id": f"{SHARD}#000000",
        **CLIP,
        "duration_s": 2.315,
        "text": "two nine five nine seven",
        "words": spoken(
            ("two", 0.0, 0.3, 0.955),
            ("nine", 0.38, 0.5, 0.8892),
            ("five", 0.68, 0.82, 0.9445),
            ("nine", 0.94, 1.1, 0.9613),
            ("seven", 1.56, 1.8, 0.9336),
        ),
        "segments": [
            {"speaker": "speaker_0", "start_s": 0.0, "end_s": 1.0},
            {"speaker": "speaker_1", "start_s": 0.9, "end_s": 2.3},
        ],
    },
    {
        "clip_id": f"{SHARD}#000004",
        "shard": f"/data/{SHARD}",
        "error": {"stage": "decode", "code": "undecodable", "message": "no decoder opens it"},
    },
    {
        "clip_id": f"{SHARD}#000005",
        **CLIP,
        "duration_s": 1.125375,
        "speaker": "en-gb-scotland+m6",
        "text": "one three",
        "words": spoken(("one", 0.0, 0.3, 0.9868), ("three", 0.46, 0.68, 0.902)),
    },
]


@pytest.mark.parametrize("format", FORMATS)
def test_example(tmp_path: Path, format: str) -> None:
    schema = output_schema(pa.schema([("speaker", pa.string())]), TRANSCRIPT_COLUMNS | DIARIZATION_COLUMNS)
    # One clip where it would be long.
    rows = {"ctm": ROWS[1:], "jsonl": ROWS[1:], "textgrid": ROWS[2:]}.get(format, ROWS)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "table.parquet")
    export(
        ExportSpec(
            table=str(tmp_path / "table.parquet"),
            format=format,
            output=str(tmp_path / "out"),
            per_clip=format == "textgrid",
        )
    )
    file = tmp_path / "out"
    if file.is_dir():
        file = file / SHARD / "000005.TextGrid"
    shown = re.search(rf"^```{format}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert shown
    assert shown[1] == file.read_text(encoding="utf-8")


def test_every_format_and_option_is_named() -> None:
    for format in FORMATS:
        assert f"`{format}`" in DOCUMENT
    for option in set(ExportSpec.model_fields) - {"storage", "output", "table", "format"}:
        assert f"`--{option.replace('_', '-')}`" in DOCUMENT
