"""A table of the demo's recordings, as a job that was quite sure of itself might have written it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.schema import output_schema
from pipeline.tasks import TASKS, columns_of
from tests.conftest import ROOT
from w2vbert.config import Wav2Vec2BertConfig

CORPUS = ROOT / "demo" / "corpus"
CARRIED = pa.schema([("ref_text", pa.string()), ("speaker", pa.string()), ("take", pa.int64())])
_OPTIONS = {name: task.options() for name, task in TASKS.items()} | {
    "transcribe": TASKS["transcribe"].options(align=True)
}
COLUMNS = columns_of(TASKS, _OPTIONS, dict.fromkeys(TASKS, Wav2Vec2BertConfig(xvector_output_dim=4)))
UNDECODABLE = {"stage": "decode", "code": "undecodable", "message": "no decoder knows </script><b>it</b>"}
PARQUET, TAR = "parquet/train-00000-of-00001.parquet", "webdataset/shard-000000.tar"
# Of each clip: its id, seconds, speaker, what was said and what is heard.
CLIPS: list[tuple[str, float, str | None, str | None, str]] = [
    ("loose/lossless.flac#lossless", 2.2228125, None, None, "two five three three"),
    ("loose/speech.opus#speech", 2.0015, None, None, "zeroioht four nignht nine"),
    ("loose/telephone.wav#telephone", 3.215375, None, None, "six six four eight"),
    ("manifest/list.jsonl#1", 1.765, "f3", "six one nine three", "six one nine three"),
    ("manifest/list.jsonl#2", 2.3790625, "m4", "seven zero six seven", "seven six seven seven"),
    ("manifest/list.jsonl#3", 3.938875, "f5", "seven zero three seven four seven", "seven zero three"),
    (f"{PARQUET}#1", 0.6935, "m4", "three", "tree"),
    (f"{PARQUET}#4", 1.820875, "f5", "six three three zero one three", "six thre three zero three"),
    (f"{PARQUET}#6", 1.22625, "f3", "two zero", "two zero"),
    (f"{TAR}#000000", 2.315, "f5", "two nine five nine seven", "two nine five nine seven"),
    (f"{TAR}#000003", 1.7606875, "m4", "one zero", "one zero zero"),
]


def rows() -> list[dict[str, Any]]:
    """One of each clip, and one that could not be decoded."""
    draw = np.random.default_rng(7)
    return [
        *(_row(number, draw, *clip) for number, clip in enumerate(CLIPS)),
        {
            "clip_id": "webdataset/shard-000000.tar#000004",
            "shard": str(CORPUS / "webdataset/shard-000000.tar"),
            "ref_text": "seven zero",
            "speaker": "f5",
            "error": UNDECODABLE,
        },
    ]


def _row(
    number: int,
    draw: np.random.Generator,
    clip_id: str,
    seconds: float,
    *texts: str | None,
) -> dict[str, Any]:
    speaker, said, heard = texts
    assert heard is not None
    spoken = heard.split()
    edges = np.linspace(0.1, seconds - 0.1, len(spoken) + 1)
    voice = np.array([1.0, number % 2, 0.1, 0.0]) + draw.normal(size=4) / 20
    frames = int(seconds / 0.02)
    half = seconds / 2
    return {
        "clip_id": clip_id,
        "shard": str(CORPUS / clip_id.partition("#")[0]),
        "duration_s": seconds,
        "sample_rate": 16_000,
        "channels": 1,
        "ref_text": said,
        "speaker": speaker,
        "take": number % 3,
        "text": heard,
        "text_confidence": 0.95 - number / 50,
        "words": [
            {"word": word, "start_s": start, "end_s": end - 0.02, "confidence": 0.7 + number / 50}
            for word, start, end in zip(spoken, edges, edges[1:], strict=False)
        ],
        "alignment_score": None if said is None else -number / 10,
        "label": ("male", "female")[number % 2],
        "label_score": 0.5 + number / 30,
        "labels": [{"label": "male", "score": 0.6}, {"label": "female", "score": 0.4}],
        "segments": [
            {"speaker": "speaker_0", "start_s": 0.0, "end_s": half},
            *([{"speaker": "speaker_1", "start_s": half, "end_s": seconds}] if number % 2 else []),
        ],
        "frame_activity": [1] * (frames // 2) + [3 if number % 2 else 0] * (frames - frames // 2),
        "embedding": (voice / np.linalg.norm(voice)).tolist(),
        "embedding_norm": 3.0,
        "encoder_s": seconds / 100,
    }


def write(folder: Path, held: list[dict[str, Any]] | None = None, without: tuple[str, ...] = ()) -> Path:
    """The rows as a table of two files, but for some columns."""
    held = rows() if held is None else held
    folder.mkdir(parents=True)
    kept = {name: kind for name, kind in COLUMNS.items() if name not in without}
    schema = output_schema(pa.schema([one for one in CARRIED if one.name not in without]), kept)
    metadata = {
        "w2vbert.run_id": "20261128T000000Z-abcdef",
        "w2vbert.models": '{"transcribe": {"name": "demo/checkpoint", "digest": "sha256:0123456789"}}',
        "w2vbert.spec": '{"input": ["demo/corpus"], "channel": "mean"}',
    }
    for number, part in enumerate((held[: len(held) // 2], held[len(held) // 2 :])):
        known = [{name: row.get(name) for name in schema.names} for row in part]
        table = pa.Table.from_pylist(known, schema=schema.with_metadata(metadata))
        pq.write_table(table, folder / f"part-{number}.parquet")
    return folder


def ask(table: Path, question: str) -> Any:
    """The one number that DuckDB answers."""
    (answer,) = duckdb.sql(question.replace("clips", f"'{table}/*.parquet'")).fetchall()
    return answer[0]
