"""The jobs as functions, and docs/python.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

import pipeline
from pipeline import transcribe
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageOptions
from tests.conftest import ROOT

DEMO = ROOT / "demo"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "from pipeline import annotate, classify, diarize, embed, transcribe; import sys; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert {"torch", "ray", "pyarrow", "pydantic", "w2vbert"}.isdisjoint(loaded.stdout.split())


def test_the_table_has_all_files_and_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    rows = [{"clip_id": "a.tar#1", "text": "seven"}, {"clip_id": "a.tar#2", "text": None}]
    for number, row in enumerate(rows):
        pq.write_table(
            pa.table({name: pa.array([value], pa.string()) for name, value in row.items()}),
            tmp_path / f"{number}.parquet",
        )
    done = pipeline.Annotations(str(tmp_path), None, Storage(StorageOptions()))
    assert done.files == [str(tmp_path / "0.parquet"), str(tmp_path / "1.parquet")]
    assert done.table().to_pylist() == rows
    assert done.table(["text"]).to_pylist() == [{"text": "seven"}, {"text": None}]
    with pytest.raises(KeyError, match="no_such_column"):
        done.table(["no_such_column"])


def test_bad_configuration(tmp_path: Path) -> None:
    told = {"input": DEMO / "corpus", "output": tmp_path / "out", "model": DEMO / "checkpoint"}
    with pytest.raises(ValidationError, match="beam_widht"):
        transcribe(**told, beam_widht=8)
    with pytest.raises(JobError, match="no-such-model"):
        transcribe(**{**told, "model": tmp_path / "no-such-model"})
    for name, value in (("plan", True), ("report", "x.html")):
        with pytest.raises(JobError, match=f"{name}: "):
            transcribe(**told, **{name: value})
    assert not (tmp_path / "out").exists()


def test_the_page_names_what_there_is() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in ("transcribe", "classify", "diarize", "embed", "annotate"):
        assert f"`{name}`" in page
        assert callable(getattr(pipeline, name))
    for name in re.findall(r"^- `(\w+)", page, re.MULTILINE):
        assert name in {*dir(pipeline.Annotations), *pipeline.Annotations.__dataclass_fields__}
