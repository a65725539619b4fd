"""The five queries of docs/questions.md, on what the job really writes for the demo corpus."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import jiwer
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
# A question on a line of its own, an empty line, the query.
QUERIES = re.findall(
    r"^([^\n]+\?)\n\n```sql\n(.+?)```$",
    (ROOT / "docs" / "questions.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture(scope="module")
def output(demo_table: Path) -> Path:
    return demo_table


@pytest.fixture(scope="module")
def rows(output: Path) -> list[dict[str, Any]]:
    # File by file: pyarrow would take the folder's JSON for Parquet.
    return [row for file in sorted(output.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def answer(topic: str, output: Path) -> list[tuple[Any, ...]]:
    (query,) = [query for question, query in QUERIES if topic in question]
    assert "'demo/out/annotated/*.parquet'" in query
    return duckdb.sql(query.replace("demo/out/annotated", str(output))).fetchall()


def test_there_are_five() -> None:
    assert len(QUERIES) == 5


def test_speech_by_folder(output: Path, rows: list[dict[str, Any]]) -> None:
    answered = answer("each folder", output)
    assert [row[:3] for row in answered] == [
        ("loose", 6, 0),
        ("manifest", 6, 0),
        ("parquet", 10, 0),
        ("webdataset", 8, 1),
    ]
    seconds = Counter[str]()
    for row in rows:
        seconds[row["clip_id"].split("/")[0]] += row["duration_s"] or 0.0
    assert {folder: value for folder, _, _, value in answered} == pytest.approx(seconds, abs=0.06)


def test_clips_without_transcript(output: Path) -> None:
    ((clip_id, stage, code, message),) = answer("no transcript", output)
    assert clip_id.startswith("webdataset/shard-000000.tar#")
    assert "000004" in clip_id
    assert (stage, code) == ("decode", "undecodable")
    assert message


def test_where_a_word_is_said(output: Path, rows: list[dict[str, Any]]) -> None:
    expected = [
        (row["clip_id"], word["start_s"], word["end_s"], word["confidence"])
        for row in rows
        for word in row["words"] or []
        if word["word"] == "seven"
    ]
    assert expected  # else the comparison says nothing
    assert answer("seven", output) == sorted(expected)


def test_character_error_rate_by_speaker(output: Path, rows: list[dict[str, Any]]) -> None:
    answered = answer("character error rate", output)
    assert len(answered) == 6
    for speaker, clips, rate in answered:
        of_speaker = [
            row for row in rows if row["speaker"] == speaker and row["error"] is None and row["ref_text"]
        ]
        assert clips == len(of_speaker)
        references = [row["ref_text"] for row in of_speaker]
        assert rate == pytest.approx(jiwer.cer(references, [row["text"] for row in of_speaker]))


def test_least_confident_transcripts(output: Path, rows: list[dict[str, Any]]) -> None:
    scored = [row for row in rows if row["text_confidence"] is not None]
    scored.sort(key=lambda row: (row["text_confidence"], row["clip_id"]))
    expected = [(row["clip_id"], row["text"], row["text_confidence"]) for row in scored[:5]]
    assert answer("listen to first", output) == expected


def test_pandas_and_polars_read_it_without_options(output: Path, rows: list[dict[str, Any]]) -> None:
    expected = sorted(row["clip_id"] for row in rows)
    assert len(set(expected)) == 30
    frames = [pd.read_parquet(file) for file in output.glob("*.parquet")]
    assert sorted(pd.concat(frames)["clip_id"]) == expected
    assert sorted(pl.read_parquet(output / "*.parquet")["clip_id"]) == expected
