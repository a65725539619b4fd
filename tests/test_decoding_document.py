"""What docs/decoding.md tells people to type: its queries and its lexicon."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.schema import CLIP_COLUMNS
from pipeline.tasks.transcribe import ALIGNMENT_COLUMNS, TRANSCRIPT_COLUMNS

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "decoding.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^```sql\n(.+?)```$", PAGE, re.MULTILINE | re.DOTALL)


def row(clip_id: str, reference: str | None, score: float | None, *confidences: float) -> dict[str, Any]:
    words = (reference or "").split()
    aligned = [
        {"word": word, "start_s": 0.5, "end_s": 1.0, "confidence": confidence}
        for word, confidence in zip(words, confidences, strict=True)
    ]
    return {
        "clip_id": clip_id,
        "ref_text": reference,
        "alignment_score": score,
        "aligned_words": None if score is None else aligned,
    }


@pytest.fixture
def output(tmp_path: Path) -> Path:
    schema = pa.schema(
        [
            *CLIP_COLUMNS.items(),
            ("ref_text", pa.string()),
            *TRANSCRIPT_COLUMNS.items(),
            *ALIGNMENT_COLUMNS.items(),
        ]
    )
    failed = row("failed", "x", None, 0.0) | {
        "error": {"stage": "decode", "code": "truncated", "message": "ends early"}
    }
    rows = [
        row("good", "one two", -0.1, 0.9, 0.8),
        row("one wrong", "one two", -0.2, 0.9, 0.1),
        row("other", "three", -1.5, 0.0),
        row("too long", "nine nine", None, 0.0, 0.0),
        row("no reference", None, None),
        failed,
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "rows.parquet")
    return tmp_path


def test_queries(output: Path) -> None:
    answers = [duckdb.sql(query.replace("'out/", f"'{output}/")).fetchall() for query in QUERIES]
    pairs, mismatches, distribution, unheard = answers
    assert sorted(pairs) == [("good", "one two"), ("one wrong", "one two")]
    assert [clip_id for clip_id, *_ in mismatches] == ["too long", "other"]
    assert [(round(score, 1), n) for score, n in distribution if score is not None] == [
        (-1.5, 1),
        (-0.2, 1),
        (-0.1, 1),
    ]
    assert [answer[:3] for answer in unheard] == [("one wrong", "two", 0.5)]


def test_lexicon_from_words(tmp_path: Path) -> None:
    (command,) = re.findall(r"^sed .+?(?= +#)", PAGE, re.MULTILINE)
    (tmp_path / "words.txt").write_text("one\ncafé\n", encoding="utf-8")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, env={"LC_ALL": "C.UTF-8"})
    made = (tmp_path / "words.lexicon").read_text(encoding="utf-8")
    assert made == "one\to n e |\ncafé\tc a f é |\n"
