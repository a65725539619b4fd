"""--where: what passes, on shards of every layout, and what is said of a condition that is none."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.corpus.clips import read_table
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.condition import Where
from pipeline.corpus.listing import discover, filter_files
from pipeline.corpus.parts import Part, Selection, bundles, read_parts, split
from pipeline.corpus.readers.base import loose_clip
from pipeline.errors import JobError
from pipeline.schema import READ_COLUMNS
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())
PASSTHROUGH = pa.schema([("language", pa.string()), ("age", pa.int64()), ("ref_text", pa.string())])
Counts = dict[str, tuple[int, int]]
LANGUAGES = ["en", "de", None, "en"]
AGES = [20, 30, 40, None]


def flac(seed: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, 800)
    soundfile.write(buffer, noise, 16_000, format="FLAC")
    return buffer.getvalue()


CLIPS = [flac(seed) for seed in range(4)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The same four clips in three layouts, and one loose file."""
    home = tmp_path / "in"
    home.mkdir()
    rows = [{"language": language, "age": age} for language, age in zip(LANGUAGES, AGES, strict=True)]
    columns = {"audio": CLIPS, "language": LANGUAGES, "age": AGES}
    pq.write_table(pa.table(columns), home / "p.parquet", row_group_size=2)
    with tarfile.open(home / "t.tar", "w") as archive:
        for number, row in enumerate(rows):
            for name, data in (
                (f"{number}.flac", CLIPS[number]),
                (f"{number}.json", json.dumps(row).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    lines = [json.dumps({"audio_filepath": f"../{number}.flac", **row}) for number, row in enumerate(rows)]
    (home / "m.jsonl").write_text("\n".join(lines))
    (home / "x.flac").write_bytes(CLIPS[0])
    return home


def read(
    corpus: Path, where: str | None, done: dict[str, pa.Array] | None = None, counts: Counts | None = None
) -> list[dict[str, Any]]:
    """What the read tasks yield, run here one after another."""

    def finished(part: Part, clips: int, matched: int) -> None:
        if counts is not None:
            counts[part.shard.name] = (clips, matched)

    shards = discover([str(corpus)], STORAGE, outputs=["elsewhere"])
    parts = [part for shard in shards for part in split(shard, STORAGE)]
    passthrough = Passthrough(PASSTHROUGH)
    tables = (
        table
        for some in bundles(parts)
        for table in read_parts(some, STORAGE, passthrough, Selection(where, done or {}), finished)
    )
    return [row for table in tables for row in table.to_pylist()]


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["clip_id"] for row in rows)


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("language = 'en'", [0, 3]),
        ("language = 'en' AND age < 25", [0]),
        ("age >= 30 OR language IS NULL", [1, 2]),
        ("age > 100", []),
        ("LANGUAGE IN ('de', 'fr') -- names know no case", [1]),
    ],
)
def test_every_layout_yields_what_passes(corpus: Path, where: str, keys: list[int]) -> None:
    counts: Counts = {}
    rows = [row for row in read(corpus, where, counts=counts) if "#x" not in row["clip_id"]]
    assert ids(rows) == sorted(
        [f"p.parquet#{key}" for key in keys]
        + [f"t.tar#{key}" for key in keys]
        + [f"m.jsonl#{key + 1}" for key in keys]
    )
    audio = {row["clip_id"]: row["audio"] for row in rows if row["audio"]}
    assert audio == {f"{name}#{key}": CLIPS[key] for name in ("p.parquet", "t.tar") for key in keys}
    count = len(keys)
    del counts["x.flac"]
    assert counts == {"p.parquet": (count, 0), "t.tar": (count, 0), "m.jsonl": (count, 0)}


def test_by_name(corpus: Path) -> None:
    assert ids(read(corpus, "shard LIKE '%.tar' AND clip_id NOT LIKE '%#0'")) == [
        "t.tar#1",
        "t.tar#2",
        "t.tar#3",
    ]


def test_a_finished_part_counts_what_passes_and_has_rows(corpus: Path) -> None:
    counts: Counts = {}
    uri = str(corpus / "t.tar")
    done = {uri: pa.array(["t.tar#0", "t.tar#1"], pa.string())}
    assert ids(read(corpus, "language = 'en' AND shard LIKE '%.tar'", done, counts)) == ["t.tar#3"]
    assert counts["t.tar"] == (2, 1)


def test_rows_that_could_not_be_read_pass(corpus: Path) -> None:
    path = corpus / "p.parquet"
    at = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[at : at + 12] = b"\xff" * 12
    path.write_bytes(data)
    rows = read(corpus, "language = 'de' AND shard LIKE '%.parquet'")
    assert [(row["clip_id"], row["error"] and row["error"]["code"]) for row in rows] == [
        ("p.parquet#1", None),
        ("p.parquet#2", "broken_shard"),
        ("p.parquet#3", "broken_shard"),
        ("p.parquet#", "broken_shard"),
    ]
    # What the condition can tell, it does.
    assert ids(read(corpus, "clip_id = 'p.parquet#3'")) == ["p.parquet#3"]


def test_a_value_that_does_not_fit_is_no_answer_and_stops_nothing(corpus: Path) -> None:
    rows = read(corpus, "CAST(language AS INTEGER) = 1 OR (language = 'de' AND shard LIKE '%.tar')")
    assert ids(rows) == []
    assert ids(read(corpus, "TRY_CAST(language AS INTEGER) IS NULL AND age = 20")) == [
        "m.jsonl#1",
        "p.parquet#0",
        "t.tar#0",
    ]


def test_loose_files_are_judged_by_their_names(corpus: Path) -> None:
    (corpus / "empty.wav").write_bytes(b"")
    shards = discover([str(corpus)], STORAGE, outputs=["elsewhere"])

    def loose(where: str) -> list[str]:
        kept = filter_files(shards, Where(where, PASSTHROUGH), Passthrough(PASSTHROUGH), STORAGE)
        assert [shard for shard in kept if shard.format != "audio"] == [
            shard for shard in shards if shard.format != "audio"
        ]
        return [shard.name for shard in kept if shard.format == "audio"]

    # An empty file is a reading error: it has no language that could exclude it.
    assert loose("language = 'en'") == ["empty.wav"]
    assert loose("clip_id LIKE 'x%'") == ["x.flac"]
    assert loose("language IS NULL") == ["empty.wav", "x.flac"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("lang = 'en'", 'Referenced column "lang" not found'),
        ("language = ", "Parser Error"),
        ("language", "must be true or false, is string"),
        ("NULL", "must be true or false"),
        ("count(*) > 1", "aggregates are not allowed"),
        ("row_number() OVER () < 5", "window functions are not allowed"),
        ("language IN (SELECT * FROM read_csv('/etc/passwd'))", "subquery"),
        ("true)) FROM clips; DROP TABLE clips; SELECT ((true", "Parser Error"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_columns_there_are(where: str, said: str) -> None:
    with pytest.raises(JobError) as caught:
        Where(where, PASSTHROUGH)
    assert str(caught.value).startswith(f"--where {where}: ")
    assert said in str(caught.value)
    assert "Available columns: clip_id, shard, language, age, ref_text." in str(caught.value)


def test_a_column_that_duckdb_cannot_read_is_not_there() -> None:
    passthrough = pa.schema([("half", pa.float16()), ("whole", pa.int8())])
    assert Where("whole = 1", passthrough).columns == ["clip_id", "shard", "whole"]
    with pytest.raises(JobError, match="half"):
        Where("half = 1", passthrough)


def test_the_columns_that_a_condition_sees_are_not_those_of_the_audio(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    (shard,) = discover([str(tmp_path)], STORAGE, outputs=["elsewhere"])
    clips = read_table([loose_clip(shard)], Passthrough(PASSTHROUGH))
    condition = Where("clip_id = 'x.wav#x'", PASSTHROUGH)
    assert condition.filter(clips).equals(clips)
    assert set(condition.columns) & READ_COLUMNS.keys() == {"clip_id", "shard"}


@pytest.mark.parametrize(
    "condition",
    [
        "(SELECT count(*) FROM read_text('{file}')) > 0",
        "true)) AND (((SELECT count(*) FROM read_text('{file}')) > 0",
        "true)) AND (((SELECT count(*) FROM '{file}') > 0",
        "true)) AND (((SELECT count(*) FROM glob('{file}')) > 0",
        "true)) AND (((SELECT count(*) FROM duckdb_settings()) > 0",
        "true)) AND (((SELECT count(*) FROM clips) > 0",
        "true)) OR ((count(*) OVER () > 0",
        "read_text('{file}') IS NULL",
        "getenv('AWS_SECRET_ACCESS_KEY') = 'x'",
        "true; COPY (SELECT 1) TO '{file}.csv'",
        "true; INSTALL httpfs",
        "true; SET enable_external_access = true",
        "columns(*) IS NOT NULL",
    ],
)
def test_a_condition_of_others_reaches_nothing_but_its_columns(tmp_path: Path, condition: str) -> None:
    file = tmp_path / "secret.txt"
    file.write_text("secret")
    with pytest.raises(JobError, match="--where"):
        Where(condition.format(file=file), PASSTHROUGH)
    assert list(tmp_path.iterdir()) == [file]


def test_the_engine_of_a_condition_is_locked() -> None:
    where = Where("age > 1", PASSTHROUGH)
    for change in ("SET enable_external_access = true", "SET lock_configuration = false", "LOAD httpfs"):
        with pytest.raises(duckdb.Error):
            where._connection.execute(change)
