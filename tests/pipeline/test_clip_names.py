"""What a clip is called in lists, and that it comes back as the same clip."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.clip_names import encode_field, names_of, shard_and_key
from pipeline.export.job import export
from pipeline.export.spec import ExportSpec
from pipeline.metrics.der import DiarizationErrors, References
from pipeline.speakers.embeddings import EmbeddingTable
from pipeline.speakers.trials import Trials, find_vectors
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())
NASTY = st.sampled_from(
    [".wav", ".tar#", "target", "%20", "%2520", ";;", "<NA>", "e\u0301"]
) | st.sampled_from(' \t\n\r\u2028\x85\x00\xa0\ufeff"#%;aé/01')
NAMES = st.lists(NASTY | st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=6).map(
    "".join
)
IDS = st.lists(
    st.tuples(NAMES, NAMES).map("#".join).filter(lambda name: name.strip("#") != ""),
    min_size=2,
    max_size=6,
    unique=True,
)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("digits.tar#0001", "digits.tar#0001"),
        ("a b\tc\u00a0d", "a%20b%09c%C2%A0d"),
        ("100%", "100%25"),
        (';;comment "x" --> y', "%3B;comment%20%22x%22%20--%3E%20y"),
        ("#first of a line", "%23first%20of%20a%20line"),
        ("two\r\nlines\u2028\u2029\x85\x00", "two%0D%0Alines%E2%80%A8%E2%80%A9%C2%85%00"),
        ("سلام/言葉.wav#é", "سلام/言葉.wav#é"),
        (os.fsdecode(b"mod\xe0.wav#mod\xe0"), "mod%E0.wav#mod%E0"),
    ],
)
def test_a_field_is_encoded_where_it_must(text: str, spelled: str) -> None:
    assert encode_field(text) == spelled
    assert unquote(spelled, errors="surrogateescape") == text


@given(NAMES)
def test_a_field_has_no_blank_and_can_be_read_back(text: str) -> None:
    spelled = encode_field(text)
    assert len(spelled.split()) == len(spelled.splitlines()) == (1 if text else 0)
    assert unquote(spelled) == text


@pytest.mark.parametrize(
    ("clip_id", "shard", "key"),
    [
        ("calls/a.tar#2024/x", "calls/a.tar", "2024/x"),
        ("x.tar#a#b", "x.tar", "a#b"),
        ("take #2.wav#take #2", "take #2.wav", "take #2"),
        ("v1.0#x.wav#v1.0#x", "v1.0#x.wav", "v1.0#x"),
        ("batch #1.tar#0001", "batch #1.tar", "0001"),
        ("batch #1.tar#a#b.c#d", "batch #1.tar", "a#b.c#d"),
        ("no ending#1#2", "no ending", "1#2"),
        ("broken.tar#", "broken.tar", ""),
        ("no mark", "no mark", ""),
    ],
)
def test_shard_and_key(clip_id: str, shard: str, key: str) -> None:
    assert shard_and_key(clip_id) == (shard, key)


def test_names_of_a_clip_from_the_surest_on() -> None:
    assert list(names_of("calls/a.tar#2024/x")) == ["calls/a.tar#2024/x", "calls/a.tar", "2024/x", "x"]
    assert list(names_of("calls/b.wav#b")) == ["calls/b.wav#b", "calls/b.wav", "b"]
    assert list(names_of("broken.tar#")) == ["broken.tar#", "broken.tar"]
    assert names_of("a b.tar#1%") == {
        "a%20b.tar#1%25": 0,
        "a b.tar#1%": 1,
        "a%20b.tar": 2,
        "a b.tar": 3,
        "1%25": 4,
        "1%": 5,
    }


def table_of(folder: Path, clip_ids: list[str]) -> Path:
    """Clips of which each has one speaker, who speaks for as many seconds as the clip's number."""
    rows: list[dict[str, Any]] = [
        {
            "clip_id": clip_id,
            "duration_s": 100.0,
            "error": None,
            "segments": [{"speaker": "s", "start_s": 0.0, "end_s": float(n)}],
            "embedding": [float(n), 100.0],
        }
        for n, clip_id in enumerate(clip_ids, 1)
    ]
    folder.mkdir(exist_ok=True)
    kinds = {"duration_s": pa.float64(), "error": pa.struct([("code", pa.string())])}
    table = pa.Table.from_pylist(rows)
    for name, kind in kinds.items():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    pq.write_table(table, folder / "t.parquet")
    return folder


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(IDS, st.integers(0, 5))
@example(["a%20b#1", "a b#1"], 0)
@example(["a b#1", "a%20b#1"], 0)
@example(["a%2520b#1", "a%20b#1", "a b#1"], 2)
def test_clips_of_any_name_go_out_and_come_back(tmp_path: Path, clip_ids: list[str], left_out: int) -> None:
    """Out as RTTM and as trials, one of the clips not; back as the reference, to the clips of all names."""
    listed = [clip_id for n, clip_id in enumerate(clip_ids) if n != left_out]
    export(
        ExportSpec(
            table=str(table_of(tmp_path / "listed", listed)),
            format="rttm",
            output=str(tmp_path / "x.rttm"),
            overwrite=True,
        )
    )
    table_of(tmp_path / "all", clip_ids)
    metric = DiarizationErrors(References.read(str(tmp_path / "x.rttm"), STORAGE))
    rows = pq.read_table(tmp_path / "all").to_pylist()
    # What speaks in "all" speaks a second more or less in "listed" where clips are mixed up.
    numbers = {clip_id: float(n) for n, clip_id in enumerate(listed, 1)}
    for row in rows:
        row["segments"][0]["end_s"] = numbers.get(row["clip_id"], 50.0)
    metric.add_rows(rows)
    assert (metric.facts()["der"], metric.facts()["der_clips"]) == (0, len(listed))
    assert metric.facts()["der_ambiguous"] == []

    lines = [f"{n % 2} {encode_field(clip_ids[0])} {encode_field(name)}\n" for n, name in enumerate(clip_ids)]
    (tmp_path / "trials.txt").write_text("".join(lines), encoding="utf-8")
    trials = Trials.read(str(tmp_path / "trials.txt"), STORAGE)
    found = find_vectors(trials.names, EmbeddingTable.open(str(tmp_path / "all"), STORAGE))
    assert found.missing == {}
    vectors = found.vectors[found.row[trials.test]]
    assert [round(x / y * 100) for x, y in vectors.tolist()] == list(range(1, len(clip_ids) + 1))
