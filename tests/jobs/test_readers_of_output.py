"""What one run leaves behind, seen by those who read it, and by the runs after it."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.transcribe import main
from pipeline.annotate.checkpoints import read_backbones
from pipeline.schema import output_schema
from pipeline.storage import Storage, StorageOptions
from pipeline.tasks import TASKS
from pipeline.tasks.transcribe import TRANSCRIPT_COLUMNS
from tests.jobs.tables import log_of
from w2vbert.heads import Wav2Vec2BertForCTC
from w2vbert.pretrained.digest import backbone_digest

ROOT = Path(__file__).resolve().parents[2]
CORPUS, MODEL = ROOT / "demo" / "corpus", ROOT / "demo" / "checkpoint"
pytestmark = pytest.mark.usefixtures("local_ray")


def transcribe(output: Path, *more: str, corpus: Path = CORPUS) -> int:
    return main(["--input", str(corpus), "--model", str(MODEL), "--output", str(output), *more])


def snapshot(output: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in output.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def output(demo_table: Path) -> Path:
    return demo_table


@pytest.fixture(scope="module")
def table(output: Path) -> pa.Table:
    return pa.concat_tables(pq.ParquetFile(file).read() for file in sorted(output.glob("*.parquet")))


@pytest.fixture(scope="module")
def summary(output: Path) -> dict[str, Any]:
    (file,) = [file for file in log_of(output).glob("*.json") if file.name != "table.json"]
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert found["run_id"] == file.stem
    return found


def test_every_reader_sees_the_same_rows(output: Path, table: pa.Table) -> None:
    ids = sorted(table["clip_id"].to_pylist())
    assert len(set(ids)) == len(ids) > 0
    for place in (output, f"{output}/*.parquet", f"{output}/**"):
        query = f"SELECT clip_id FROM read_parquet('{place}') ORDER BY clip_id"
        assert [row[0] for row in duckdb.sql(query).fetchall()] == ids
    assert sorted(pd.read_parquet(output)["clip_id"]) == ids
    assert sorted(pl.read_parquet(output)["clip_id"]) == ids
    assert sorted(pl.scan_parquet(output).collect()["clip_id"]) == ids
    assert sorted(pq.read_table(output)["clip_id"].to_pylist()) == ids
    loaded = datasets.load_dataset(str(output), split="train", cache_dir=str(output.parent / "cache"))
    assert sorted(loaded["clip_id"]) == ids
    # Spark and Hive leave out names that begin with "_" or ".": nothing else lies there.
    assert [path.suffix for path in output.rglob("*")] == [".parquet"] * len(list(output.iterdir()))


def test_every_file_has_the_declared_schema(output: Path) -> None:
    identity = json.loads((log_of(output) / "table.json").read_text())
    passthrough = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(identity["passthrough"])))
    declared = output_schema(passthrough, TRANSCRIPT_COLUMNS)
    for file in output.glob("*.parquet"):
        assert pq.read_schema(file).equals(declared, check_metadata=False)


def test_metadata_names_model_and_settings(output: Path, summary: dict[str, Any]) -> None:
    storage = Storage(StorageOptions())
    (read,) = read_backbones({"transcribe": str(MODEL)}, {"transcribe": "--model"}, TASKS, storage)
    digest = read.checkpoints["transcribe"].digest
    backbone = backbone_digest(Wav2Vec2BertForCTC.from_pretrained(MODEL))
    for file in output.glob("*.parquet"):
        metadata = pq.read_metadata(file).metadata
        assert json.loads(metadata[b"w2vbert.models"]) == {
            "transcribe": {"name": str(MODEL), "digest": digest, "backbone": backbone}
        }
        assert json.loads(metadata[b"w2vbert.spec"]) == summary["spec"]
        assert json.loads(metadata[b"w2vbert.spec"])["input"] == [str(CORPUS)]
        assert metadata[b"w2vbert.run_id"].decode() == summary["run_id"]
        assert set(json.loads(metadata[b"w2vbert.versions"])) >= {"w2vbert", "torch", "ray"}


def test_summary_agrees_with_the_table(table: pa.Table, summary: dict[str, Any]) -> None:
    rows = table.to_pylist()
    fine = [row for row in rows if row["error"] is None]
    assert summary["clips"] == len(rows)
    assert summary["annotated"] == len(fine)
    assert sum(summary["errors"].values()) == len(rows) - len(fine)
    assert summary["hours"] * 3600 == pytest.approx(sum(row["duration_s"] for row in fine))
    assert summary["encoder_s"] == pytest.approx(sum(row["encoder_s"] for row in fine))
    assert summary["shards_skipped"] == 0
    assert all((row["text"] is None) == (row["error"] is not None) for row in rows)


def test_a_second_run_skips_all(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(output)
    assert transcribe(output) == 0
    assert "nothing is new" in capsys.readouterr().err
    assert snapshot(output) == before


def test_other_settings_are_refused(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(output)
    assert transcribe(output, "--dtype", "bfloat16") == 2
    assert "dtype: it was 'float32', now 'bfloat16'" in capsys.readouterr().err
    assert snapshot(output) == before


def test_a_table_goes_on_in_the_dtype_it_was_begun_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless another is asked for: `auto` alone follows it, whatever it would choose for a new table."""
    corpus, output = tmp_path / "in", tmp_path / "out"
    corpus.mkdir()
    shutil.copy(CORPUS / "loose" / "telephone.wav", corpus)
    assert transcribe(output, "--dtype", "bfloat16", corpus=corpus) == 0
    assert "dtype       bfloat16\n" in capsys.readouterr().out
    shutil.copy(CORPUS / "loose" / "speech.opus", corpus)
    assert transcribe(output, corpus=corpus) == 0
    assert "dtype       bfloat16 (auto: as the table was begun)\n" in capsys.readouterr().out
    assert pq.read_table(output).num_rows == 2
    assert transcribe(output, "--overwrite", corpus=corpus) == 0
    said = "dtype       float32 (auto: for encoders 96 wide on CPUs)\n"
    assert said in capsys.readouterr().out
    held = json.loads((log_of(output) / "table.json").read_text())
    assert held["dtype"] == "float32"


def test_overwrite_starts_anew(tmp_path: Path) -> None:
    output, corpus = tmp_path / "out", CORPUS / "loose"
    assert transcribe(output, corpus=corpus / "telephone.wav") == 0
    before = snapshot(output)
    assert transcribe(output, "--overwrite", "--dtype", "bfloat16", corpus=corpus / "telephone.wav") == 0
    assert not {name for name in before if name.endswith(".parquet")} & set(snapshot(output))
    (row,) = pq.read_table(output).to_pylist()
    assert row["clip_id"] == "telephone.wav#telephone"
    assert json.loads((log_of(output) / "table.json").read_text())["dtype"] == "bfloat16"


def test_an_output_and_a_model_that_are_files(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file, *_) = output.glob("*.parquet")
    assert transcribe(file) == 2
    assert f"--output {file} is a file; name a directory." in capsys.readouterr().err
    told = ["--input", str(CORPUS), "--output", str(output), "--model", str(MODEL / "config.json")]
    assert main(told) == 2
    assert "config.json is a file; name the checkpoint's directory." in capsys.readouterr().err


def test_overwrite_deletes_nothing_for_a_job_that_cannot_run(output: Path) -> None:
    before = snapshot(output)
    assert transcribe(output, "--overwrite", corpus=CORPUS / "nowhere") == 2
    assert transcribe(output, "--overwrite", "--num-gpus-per-actor", "1") == 2
    assert snapshot(output) == before
