"""The jobs as functions on a cluster, and the notebook."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import nbformat
import pyarrow as pa
import pytest
from nbclient import NotebookClient

from pipeline import annotate, transcribe
from tests.conftest import ROOT

DEMO = ROOT / "demo"


@pytest.mark.usefixtures("local_ray")
def test_transcribe(tmp_path: Path, demo_table: Path) -> None:
    inputs = [DEMO / "corpus/loose", DEMO / "corpus/webdataset"]
    done = transcribe(inputs, tmp_path / "table", model=DEMO / "checkpoint")
    assert (done.output, done.summary.complete) == (str(tmp_path / "table"), True)
    table = done.table(["clip_id", "text"])
    assert table.column_names == ["clip_id", "text"]
    assert table.schema.field("text").type == pa.string()
    found = dict(zip(*table.to_pydict().values(), strict=True))
    wanted = duckdb.sql(f"SELECT regexp_replace(clip_id, '^[^/]*/', ''), text FROM '{demo_table}/*.parquet'")
    expected = {name: text for name, text in wanted.fetchall() if name in found}
    assert len(found) == 14
    assert found == expected
    again = transcribe(inputs, tmp_path / "table", model=DEMO / "checkpoint")
    assert again.summary.whole.clips == 0
    assert again.table().num_rows == 14
    assert again.files == [str(file) for file in sorted((tmp_path / "table").glob("*.parquet"))]
    with pytest.raises(KeyError, match="no_such_column"):
        done.table(["no_such_column"])


@pytest.mark.usefixtures("local_ray")
def test_annotate_is_the_function_whatever_was_imported_before(tmp_path: Path) -> None:
    import pipeline.annotate.stage

    called = pipeline.annotate(
        DEMO / "corpus/loose", tmp_path / "table", embed=DEMO / "embed", classify=DEMO / "classify"
    )
    assert called.table().num_rows == 6
    assert {"label", "embedding"} <= set(called.table().column_names)
    assert callable(annotate)
    later = transcribe(DEMO / "corpus/loose", tmp_path / "table", model=DEMO / "checkpoint")
    assert later.output == f"{called.output}-transcribe"
    assert later.table(["text"]).num_rows == 6


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2VBERT_NOTEBOOK_OUTPUT", str(tmp_path / "table"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(ROOT / "docs" / "corpus.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "docs")}}).execute()
    shown = [
        output.get("text") or output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert "30 clips, 1 with an error\n" in shown
    assert any("start_s" in text and "clip_id" in text for text in shown)
    assert any("cer" in text for text in shown)
