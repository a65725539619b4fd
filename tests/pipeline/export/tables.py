"""A small table with every kind of row, and exports of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export.job import Exported, export
from pipeline.export.spec import ExportSpec
from pipeline.schema import output_schema
from pipeline.tasks import TASKS, columns_of
from w2vbert.config import Wav2Vec2BertConfig

CARRIED = pa.schema([("ref_text", pa.string()), ("language", pa.string()), ("duration", pa.float64())])
_OPTIONS = {name: task.options() for name, task in TASKS.items()} | {
    "transcribe": TASKS["transcribe"].options(align=True)
}
ALL = columns_of(TASKS, _OPTIONS, dict.fromkeys(TASKS, Wav2Vec2BertConfig(xvector_output_dim=3)))
UNDECODABLE = {"stage": "decode", "code": "undecodable", "message": "no decoder accepts <it> & says so"}


def words(*spoken: tuple[str, float, float], confidence: float | None = 0.9) -> list[dict[str, Any]]:
    return [{"word": w, "start_s": s, "end_s": e, "confidence": confidence} for w, s, e in spoken]


def turns(*spoken: tuple[str, float, float]) -> list[dict[str, Any]]:
    return [{"speaker": w, "start_s": s, "end_s": e} for w, s, e in spoken]


def clip(clip_id: str, duration_s: float | None, **values: Any) -> dict[str, Any]:
    return {"clip_id": clip_id, "shard": f"/in/{clip_id.split('#')[0]}", "duration_s": duration_s, **values}


ROWS = [
    clip(
        "a b.tar#Hello",
        2.5004,
        ref_text="hallo world",
        language="en",
        duration=9.0,
        extra='{"id": 7}',
        text="hello world",
        text_confidence=0.9,
        words=words(("hello", 0.02, 0.42), ("world", 0.5, 0.98)),
        aligned_words=words(("hallo", 0.0, 0.4), ("world", 0.48, 1.0), confidence=None),
        alignment_score=-0.25,
        label="en",
        label_score=0.75,
        labels=[{"label": "en", "score": 0.75}, {"label": "de", "score": 0.25}],
        segments=turns(("speaker_0", 0.0, 1.5), ("speaker_1", 1.0, 2.5)),
        frame_activity=[1, 3, 2],
        frame_probabilities=[[0.5, 0.5]],
        embedding=[0.6, 0.0, 0.8],
        embedding_norm=12.5,
        encoder_s=0.01,
    ),
    clip("a b.tar#broken", None, error=UNDECODABLE),
    clip("a b.tar#hello", 1.2, text="a < b & c --> d", segments=[]),
    clip("b.tar#silent", 3.0, text="", words=[], segments=[], aligned_words=[]),
    clip(
        "b.tar#long",
        10.0,
        text="one two three",
        words=words(("one", 0.1, 0.4), ("two", 1.5, 1.9), ("three", 2.0, 2.5)),
        segments=turns(("speaker_0", 0.0, 4.0)),
    ),
]


def write(folder: Path, rows: list[dict[str, Any]], name: str = "part-0.parquet", **columns: Any) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    schema = output_schema(CARRIED, columns.get("annotations", ALL))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / name)
    return folder


@dataclass(frozen=True)
class Run:
    """Exports into a folder of its own."""

    folder: Path
    table: Path

    def __call__(self, format: str, output: str = "out", **options: Any) -> Exported:
        given = {"table": str(self.table), "output": str(self.folder / output), "overwrite": True}
        return export(ExportSpec(format=format, **given | options))

    def text(self, format: str, **options: Any) -> str:
        self(format, per_clip=False, **options)
        return (self.folder / "out").read_text(encoding="utf-8")

    def files(self, format: str, **options: Any) -> dict[str, str]:
        self(format, "files", per_clip=True, **options)
        found = (self.folder / "files").rglob("*")
        return {
            file.relative_to(self.folder / "files").as_posix(): file.read_text(encoding="utf-8")
            for file in found
            if file.is_file()
        }
