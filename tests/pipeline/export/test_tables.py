"""Which table is exported, and in how much memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import duckdb
import pytest

from pipeline.export.job import export
from pipeline.export.spec import ExportSpec
from tests.pipeline.export.tables import ROWS, Run, clip, words, write


def test_globs_and_single_files(run: Run, table: Path) -> None:
    assert [run("ctm", table=str(table / f"part-{n}.parquet")).clips for n in (0, 1)] == [1, 2]
    assert run("jsonl", table=str(table / "part-*.parquet")).clips == 5
    assert run("jsonl", table=str(table / "*")).clips == 5
    assert run("jsonl", table=str(table / "**")).clips == 5
    odd = write(run.folder / "odd[1]*", ROWS)
    assert run("jsonl", table=str(odd)).clips == 5


def test_a_table_that_another_tool_wrote(run: Run, table: Path) -> None:
    duckdb.sql(
        f"COPY (SELECT * EXCLUDE (shard, duration_s, error) FROM '{table}/*.parquet' "
        f"WHERE clip_id LIKE 'b.tar%') TO '{run.folder}/filtered.parquet' (FORMAT parquet)"
    )
    run("textgrid", "grids", table=str(run.folder / "filtered.parquet"))
    assert run.text("ctm", table=str(run.folder / "filtered.parquet")).count("b.tar#long 1 ") == 3
    assert (run.folder / "grids/b.tar/long.TextGrid").exists()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["jsonl", "vtt", "textgrid", "srt", "elan"])
def test_memory_does_not_grow_with_the_table(tmp_path: Path, format: str) -> None:
    said = words(*((f"word{n}", n * 0.5, n * 0.5 + 0.4) for n in range(20)))
    rows = [clip(f"a.tar#{n:06}", 30.0, text="…", words=said) for n in range(100)]
    small = write(tmp_path / "small", rows)
    for part in range(10):
        large = write(tmp_path / "large", rows, f"part-{part}.parquet")
    peaks = []
    for table in (small, large):
        spec = ExportSpec(
            table=str(table), format=format, output=str(tmp_path / table.name) + ".out", per_clip=False
        )
        tracemalloc.start()
        export(spec)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + (1 << 19), peaks
