"""What a job looks at before it starts: options that skip shards, and mistakes that cost nothing."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobError
from pipeline.spec import TranscribeSpec
from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from pipeline.table.scan import Changes, choose_table, opened, packed_schema, scan

STORAGE = Storage(StorageOptions())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two Parquet shards with a column each of their own, and two loose files."""
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"audio": [b"1"], "language": ["en"]}), folder / "a.parquet")
    pq.write_table(pa.table({"audio": [b"1"], "age": [20]}), folder / "b.parquet")
    for name in ("x.wav", "y.wav"):
        (folder / name).write_bytes(b"RIFF")
    return folder


def look(home: Path, **options: Any) -> Changes:
    output = str(home.parent / "out")
    spec = TranscribeSpec(input=[str(home)], output=output, model="m", **options)
    ledger = Ledger(output, STORAGE)
    with opened(spec, ledger):
        return scan(spec, ledger, spec.output_settings())


def names(found: Changes) -> list[str]:
    return [shard.name for shard in found.work.shards]


def test_since_skips_older_shards_and_says_so(home: Path) -> None:
    for name in ("a.parquet", "x.wav"):
        os.utime(home / name, (1000, 1000))
    found = look(home, since=datetime(2001, 2, 3, 4, 5, tzinfo=UTC))
    assert names(found) == ["b.parquet", "y.wav"]
    assert list(found.log_lines()) == [
        "2 shards: 0 finished before and skipped, 2 to read",
        "2 shards skipped: older than 2001-02-03 04:05:00 UTC",
    ]
    # The columns of the output are fixed by its first run, so that run looks at all of the input.
    assert found.passthrough.schema.names == ["language", "age"]


def test_where_skips_loose_files_and_says_so(home: Path) -> None:
    found = look(home, where="age = 20 OR clip_id = 'y.wav#y'")
    assert names(found) == ["a.parquet", "b.parquet", "y.wav"]
    assert found.work.where == "age = 20 OR clip_id = 'y.wav#y'"
    assert list(found.log_lines())[1] == "1 audio files skipped by --where"


def test_errors_to_be_annotated_again_are_counted(home: Path) -> None:
    output = home.parent / "out"
    ledger = Ledger(str(output), STORAGE)
    first = look(home)
    spec = TranscribeSpec(input=[str(home)], output=str(output), model="m")
    error = {"stage": "decode", "code": "undecodable", "message": "noise"}
    rows = {
        "clip_id": ["a.parquet#0", "b.parquet#0", "x.wav#x", "y.wav#y"],
        "shard": [shard.uri for shard in first.work.shards],
        "error": [None, None, error, error],
        "language": ["en", None, None, None],
        "age": pa.array([None, 20, None, None], pa.int64()),
    }
    with ledger.locked():
        ledger.declare(
            {
                "models": {"transcribe": "sha256:aa"},
                **spec.output_settings(),
                "passthrough": packed_schema(first.passthrough.schema),
            }
        )
        ledger.begin(first.work)
        table = pa.table(rows)
        ledger.writer(first.work.run_id, table.schema).write([table], 0)
        ledger.finish(first.work.run_id, {})
    assert names(look(home)) == []
    found = look(home, retry_errors=True)
    assert names(found) == ["x.wav", "y.wav"]
    assert list(found.log_lines()) == [
        "4 shards: 2 finished before and skipped, 2 to read",
        "2 clips that failed before to be annotated again",
    ]
    assert names(look(home, retry_errors=True, where="clip_id LIKE 'y%'")) == ["y.wav"]


def test_a_run_counts_after_earlier_ones_whatever_the_clock_says(home: Path) -> None:
    ledger = Ledger(str(home.parent / "out"), STORAGE)
    with ledger.locked():
        for run_id in ("20990101T120458Z-aaaaaa", "20990101T120459Z-ffffff", "of another kind"):
            ledger.plans.write(run_id, [])
    assert look(home).work.run_id.startswith("20990101T120500Z-")
    assert look(home, overwrite=True).work.run_id < "2099"


def test_no_table_begins_inside_another(tmp_path: Path) -> None:
    for name in ("out", "out/old"):
        ledger = Ledger(str(tmp_path / name), STORAGE)
        with ledger.locked():
            ledger.declare({"models": {"embed": "sha256:aa"}})
    (tmp_path / "link").symlink_to("out")
    before = sorted(tmp_path.rglob("*"))
    for name in ("out/more", "out/a/b", "link/more", "_out.runs/more"):
        spec = TranscribeSpec(input=["in"], output=str(tmp_path / name), model="m")
        with pytest.raises(JobError, match=rf"--output .*/{name} lies in a table .*/_out\.runs"):
            choose_table(spec, STORAGE)
    assert sorted(tmp_path.rglob("*")) == before
    for name, chosen in (("beside", "beside"), ("out", "out-transcribe"), ("out/old", "out/old-transcribe")):
        spec = TranscribeSpec(input=["in"], output=str(tmp_path / name), model="m")
        assert choose_table(spec, STORAGE)[0].output == str(tmp_path / chosen)


def test_retrying_up_to_a_limit_is_refused(home: Path) -> None:
    with pytest.raises(JobError, match="--retry-errors and --limit do not go together"):
        look(home, retry_errors=True, limit=5)


@pytest.mark.parametrize(
    "options",
    [
        {"where": "nosuch = 1"},
        {"retry_errors": True, "limit": 1},
        {"since": datetime(2100, 1, 1, tzinfo=UTC)},
        {},
    ],
)
def test_overwrite_deletes_nothing_before_a_job_writes(home: Path, options: dict[str, Any]) -> None:
    output = home.parent / "out"
    ledger = Ledger(str(output), STORAGE)
    table = pa.table({"clip_id": ["a"], "shard": ["s"], "error": [None]})
    with ledger.locked():
        ledger.declare({"models": {"transcribe": "sha256:aa"}, "dtype": "float32"})
        ledger.writer("run1", table.schema).write([table], 0)
    (kept,) = output.glob("*.parquet")
    if options:
        with pytest.raises(JobError):
            look(home, overwrite=True, **options)
    else:
        assert names(look(home, overwrite=True)) == ["a.parquet", "b.parquet", "x.wav", "y.wav"]
    assert kept.exists()
