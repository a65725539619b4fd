"""Another annotation for a table that is there already: a table beside it, joined by clip_id."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from jobs.embed import main as embed
from jobs.transcribe import main as transcribe
from tests.conftest import ROOT
from tests.jobs.peers import build, save
from tests.jobs.tables import log_of, rows_of

pytestmark = pytest.mark.usefixtures("local_ray")
CORPUS = ROOT / "demo" / "corpus" / "loose"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> tuple[Path, Path, Path]:
    """The transcripts, what was written beside them, and the x-vector checkpoint."""
    home = tmp_path_factory.mktemp("later")
    voices = save(build("embed"), home / "voices")
    text = home / "text"
    model = str(ROOT / "demo" / "checkpoint")
    assert transcribe(["--input", str(CORPUS), "--output", str(text), "--model", model]) == 0
    before = snapshot(text)
    # A part of the input, named otherwise: the ids are those of the transcripts all the same.
    for part in (CORPUS / "podcast.mp3", CORPUS):
        assert embed(["--input", str(part), "--output", str(text), "--model", str(voices)]) == 0
    assert snapshot(text) == before
    return text, home / "text-embed", voices


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_table_beside_it_has_the_same_clips(tables: tuple[Path, Path, Path]) -> None:
    text, beside, _ = tables
    assert rows_of(text).keys() == rows_of(beside).keys()
    assert "text" not in pq.read_schema(next(beside.glob("*.parquet"))).names
    assert all(len(row["embedding"]) == 16 for row in rows_of(beside).values())


def test_the_join_of_the_page(tables: tuple[Path, Path, Path]) -> None:
    page = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
    query = page[page.index("SELECT t.clip_id, t.text, e.embedding") :].split("```")[0]
    text, beside, _ = tables
    query = query.replace("lake/transcripts-embed", str(beside)).replace("lake/transcripts", str(text))
    found = {clip_id: (said, vector) for clip_id, said, vector in duckdb.sql(query).fetchall()}
    voices = rows_of(beside)
    assert found == {
        clip_id: (row["text"], voices[clip_id]["embedding"]) for clip_id, row in rows_of(text).items()
    }


def test_the_next_night_finds_it_again(
    tables: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text, beside, voices = tables
    before = snapshot(beside)
    assert embed(["--input", str(CORPUS), "--output", str(text), "--model", str(voices)]) == 0
    said = capsys.readouterr().err
    assert f"{text} holds transcribe: these annotations go to {beside}, to be joined by clip_id" in said
    assert "nothing is new" in said
    assert snapshot(beside) == before


def test_overwrite_spares_the_elder_table(tables: tuple[Path, Path, Path], tmp_path: Path) -> None:
    text, beside, voices = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in tables)
    for table in tables[:2]:
        shutil.copytree(log_of(table), log_of(tmp_path / table.name))
    before = snapshot(text)
    arguments = ["--input", str(CORPUS), "--output", str(text), "--model", str(voices), "--overwrite"]
    assert embed(arguments) == 0
    assert snapshot(text) == before
    assert len(rows_of(beside)) == len(rows_of(text))
