"""Bad configuration, and tables that are none: said to people, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.report import main
from pipeline.errors import JobError
from pipeline.report import job
from pipeline.report.job import report
from pipeline.report.spec import ReportSpec
from tests.pipeline.report.tables import write


def refused(table: Path | str, output: Path, **options: object) -> str:
    with pytest.raises(JobError) as caught:
        report(ReportSpec(table=str(table), output=str(output), **options))  # type: ignore[arg-type]
    assert not output.is_file()
    return str(caught.value)


def test_no_table(tmp_path: Path) -> None:
    assert refused(tmp_path / "none", tmp_path / "r.html") == f"--table {tmp_path / 'none'} does not exist."


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no Parquet file there" in refused(tmp_path / "empty", tmp_path / "r.html")


def test_a_table_without_rows(tmp_path: Path) -> None:
    assert "no rows" in refused(write(tmp_path / "table", []), tmp_path / "r.html")


def test_what_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nothing of the kind")
    assert "is no readable Parquet file" in refused(tmp_path / "x.parquet", tmp_path / "r.html")


def test_a_table_of_somebody_else(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    assert "is no output of a job: it has no column clip_id but a" in refused(
        tmp_path / "x.parquet", tmp_path / "r.html"
    )


def test_a_table_of_another_version(tmp_path: Path) -> None:
    pq.write_table(pa.table({"clip_id": ["a"], "shard": ["b"]}), tmp_path / "x.parquet")
    told = refused(tmp_path / "x.parquet", tmp_path / "r.html")
    assert "lacks the columns duration_s, error" in told
    assert "another version" in told


def test_words_of_another_shape(tmp_path: Path) -> None:
    table = pa.table(
        {"clip_id": ["a"], "shard": ["b"], "duration_s": [1.0], "error": [None], "words": [["hello"]]}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    assert "the column words must be a list of structs with word, start_s, end_s" in refused(
        tmp_path / "x.parquet", tmp_path / "r.html"
    )


def test_a_damaged_table(tmp_path: Path) -> None:
    table = write(tmp_path / "table")
    file = table / "part-0.parquet"
    data = bytearray(file.read_bytes())
    data[4:2000] = b"\xff" * 1996
    file.write_bytes(data)
    assert "DuckDB cannot read it" in refused(table, tmp_path / "r.html")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("report", "is an HTML file"),
        ("table/report.html", "lies in the table"),
        ("folder.html", "is a directory"),
    ],
)
def test_places_where_no_page_can_be(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "folder.html").mkdir()
    assert told in refused(write(tmp_path / "table"), tmp_path / name)


def test_speakers_of_something_else(tmp_path: Path) -> None:
    table = write(tmp_path / "table")
    told = refused(table, tmp_path / "r.html", speakers=str(table))
    assert "is no table of speakers, with the columns clip_id, speaker_id, similarity" in told


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_PACKAGES", ("altair", "no_such_package"))
    told = refused(tmp_path / "none", tmp_path / "r.html")
    assert told == "a report needs no_such_package: pip install 'w2vbert[report]'"


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", str(tmp_path / "none"), "--output", str(tmp_path / "r.html")]) == 2
    assert capsys.readouterr().err == f"jobs/report.py: --table {tmp_path / 'none'} does not exist.\n"


def test_a_job_looks_before_it_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.transcribe import main as transcribe

    told = ["--input", str(tmp_path), "--output", str(tmp_path / "t"), "--model", str(tmp_path / "none")]
    assert transcribe([*told, "--report", str(tmp_path / "t/r.html")]) == 2
    assert f"--report {tmp_path}/t/r.html lies in the table {tmp_path}/t" in capsys.readouterr().err
    assert transcribe([*told, "--report", str(tmp_path / "r.pdf")]) == 2
    assert "--report" in capsys.readouterr().err
