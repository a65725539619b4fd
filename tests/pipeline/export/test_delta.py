"""The table as one of Delta Lake, read back by deltalake; no file is copied or changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from pipeline.errors import JobError
from pipeline.export.job import Exported, export, format_summary
from pipeline.export.spec import ExportSpec
from tests.pipeline.export.tables import ROWS, clip, write


def register(table: Path, **options: Any) -> Exported:
    return export(ExportSpec(table=str(table), format="delta", **{"output": str(table), **options}))


def by_delta(table: Path) -> list[dict[str, Any]]:
    rows = DeltaTable(str(table)).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: row["clip_id"])


def by_duckdb(table: Path) -> list[dict[str, Any]]:
    query = f"SELECT * FROM read_parquet('{table}/*.parquet', union_by_name = true) ORDER BY clip_id"
    return list(duckdb.sql(query).to_arrow_table().to_pylist())


def files(table: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in table.glob("*.parquet")}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write(tmp_path / "table", ROWS[3:], "part-1.parquet")
    return write(tmp_path / "table", ROWS[:3], "part-0.parquet")


def test_every_row_and_value_is_there_and_no_file_is_touched(table: Path) -> None:
    before = files(table)
    done = register(table)
    assert format_summary(done) == f"clips       5 written\noutput      {table}"
    assert by_delta(table) == by_duckdb(table)
    held = DeltaTable(str(table))
    assert sorted(Path(uri).name for uri in held.file_uris()) == ["part-0.parquet", "part-1.parquet"]
    assert {row["clip_id"]: row["error"] for row in by_delta(table)}["a b.tar#broken"] == ROWS[1]["error"]
    assert pa.schema(held.schema().to_arrow()).field("frame_activity").type.value_type == pa.int16()
    assert files(table) == before


def test_again_it_has_what_is_new_and_forgets_what_is_gone(table: Path) -> None:
    register(table)
    register(table)
    assert len(by_delta(table)) == 5
    retried = [{**ROWS[1], "error": None, "text": "heard at last"}, *ROWS[::2][:2]]
    write(table, retried, "part-2.parquet")
    (table / "part-0.parquet").unlink()
    register(table)
    assert by_delta(table) == by_duckdb(table)
    assert {row["clip_id"]: row["text"] for row in by_delta(table)}["a b.tar#broken"] == "heard at last"


def test_what_cannot_be_registered(table: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=f"give the table's own directory, as in --output {table}"):
        register(table, output=str(tmp_path / "other"))
    for options in ({"reference": True}, {"per_clip": True}):
        with pytest.raises(ValueError, match="delta"):
            register(table, **options)
    rows = pa.Table.from_pylist([clip("a.tar#1", 1.0) | {"my column": 1}])
    (tmp_path / "odd").mkdir()
    pq.write_table(rows, tmp_path / "odd/0.parquet")
    with pytest.raises(JobError, match=r"no columns of such names: \['my column'\]"):
        register(tmp_path / "odd")
    assert not (tmp_path / "odd/_delta_log").exists()
