"""The examples in docs/export.md are what the export writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.export.document import Document
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
# Clips that other tools can open: a file, and a part of one that a manifest names.
FILES: list[dict[str, Any]] = [
    {
        "clip_id": "calls/one.wav#one",
        "shard": "/data/calls/one.wav",
        "duration_s": 1.125375,
        "channels": 1,
        "text": "one three",
        "words": ROWS[2]["words"],
    },
    {
        "clip_id": "parts.jsonl#1",
        "shard": "/data/parts.jsonl",
        "audio_filepath": "calls/long.wav",
        "offset": 61.5,
        "duration_s": 2.25,
        "channels": 1,
        "speaker": "ann",
        "ref_text": "yes",
        "text": "yes yes",
        "words": spoken(("yes", 0.5, 0.75, 0.75), ("yes", 1.5, 2.0, 0.875)),
    },
]
CARRIED = pa.schema(
    [
        ("speaker", pa.string()),
        ("audio_filepath", pa.string()),
        ("offset", pa.float64()),
        ("ref_text", pa.string()),
    ]
)


@pytest.mark.parametrize("format", [name for name, kind in FORMATS.items() if issubclass(kind, Document)])
def test_example(tmp_path: Path, format: str) -> None:
    schema = output_schema(CARRIED, TRANSCRIPT_COLUMNS | DIARIZATION_COLUMNS)
    # One clip where it would be long.
    chosen = {"ctm": ROWS[1:], "jsonl": ROWS[1:], "textgrid": ROWS[2:], "audacity": ROWS[2:]}
    rows = (chosen | {"nemo": FILES, "lhotse": FILES, "elan": FILES[:1]}).get(format, ROWS)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "table.parquet")
    export(
        ExportSpec(
            table=str(tmp_path / "table.parquet"),
            format=format,
            output=str(tmp_path / "out"),
            per_clip=format in ("textgrid", "elan", "audacity"),
        )
    )
    file = tmp_path / "out"
    if file.is_dir():
        (file,) = (found for found in file.rglob("*.*") if found.is_file())
    shown = re.search(rf"^```{format}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert shown
    assert shown[1] == file.read_text(encoding="utf-8")


def test_every_format_and_option_is_named() -> None:
    for format in FORMATS:
        assert f"`{format}`" in DOCUMENT
    for option in set(ExportSpec.model_fields) - {"storage", "output", "table", "format"}:
        assert f"`--{option.replace('_', '-')}`" in DOCUMENT
