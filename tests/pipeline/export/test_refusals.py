"""What cannot be exported, and where an export must not go."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobError
from pipeline.export.job import export
from pipeline.export.spec import ExportSpec
from pipeline.tasks.classify import LABEL_COLUMNS
from tests.pipeline.export.tables import ROWS, Run, clip, write


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    table = write(tmp_path / "labels", [clip("a#1", 1.0, label="en")], annotations=LABEL_COLUMNS)
    wanted = {
        "rttm": "rttm needs the column segments",
        "ctm": "ctm needs the column words",
        "srt": "srt needs the column words or text",
        "textgrid": "textgrid needs the column words or segments",
    }
    for format, message in wanted.items():
        with pytest.raises(JobError, match=message) as caught:
            export(ExportSpec(table=str(table), format=format, output=str(tmp_path / "out")))
        assert "ref_text, language, duration, extra, label, label_score, labels, encoder_s" in str(
            caught.value
        )
    for options in ({"format": "ctm", "reference": True}, {"format": "jsonl", "reference": True}):
        with pytest.raises(JobError, match="the column aligned_words"):
            export(ExportSpec(table=str(table), output=str(tmp_path / "out"), **options))
    with pytest.raises(JobError, match="--embeddings needs the column embedding"):
        export(ExportSpec(table=str(table), output=str(tmp_path / "o"), format="jsonl", embeddings=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels"]


def test_no_table(tmp_path: Path, table: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "text.parquet").write_text("no Parquet at all")
    pq.write_table(pa.table({"x": [1], "y": ["a"]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"clip_id": ["a#1"], "words": ["hello"]}), tmp_path / "flat.parquet")
    write(tmp_path / "empty", [])
    for given_table, message in [
        ("absent", "absent does not exist"),
        ("nothing", "nothing: no Parquet file there"),
        ("*.nothing", "no Parquet file there"),
        ("text.parquet", "text.parquet is no readable Parquet file"),
        ("other.parquet", "it has no column clip_id but x, y"),
        (
            "flat.parquet",
            "the column words must be a list of structs with word, start_s, end_s, and is string",
        ),
        ("empty", "the table has no rows"),
    ]:
        with pytest.raises(JobError) as caught:
            export(ExportSpec(table=str(tmp_path / given_table), format="ctm", output=str(tmp_path / "out")))
        assert message in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_a_table_of_failed_clips(tmp_path: Path) -> None:
    table = write(tmp_path / "t", [ROWS[1]])
    done = export(ExportSpec(table=str(table), format="ctm", output=str(tmp_path / "out")))
    assert (done.clips, dict(done.left_out)) == (0, {"undecodable": 1})
    assert (tmp_path / "out").read_bytes() == b""
    with pytest.raises(JobError, match="no clip can be written, and a TextGrid needs one"):
        export(
            ExportSpec(
                table=str(table), format="textgrid", per_clip=False, output=str(tmp_path / "t.TextGrid")
            )
        )


def test_where_an_export_must_not_go(run: Run, table: Path) -> None:
    (run.folder / "a file").write_text("precious")
    for options, message in [
        ({"output": "table", "format": "srt"}, "is the table itself"),
        ({"output": "table", "format": "ctm"}, "is the table itself"),
        ({"output": "table/part-0.parquet", "format": "ctm"}, "is the table itself"),
        ({"output": "table/_run", "format": "ctm"}, "lies in the table"),
        ({"output": "table/x.jsonl", "format": "jsonl"}, "lies in the table"),
        ({"output": "table/below", "format": "srt"}, "lies in the table"),
        ({"output": "a file", "format": "srt"}, "is a file, and a directory is needed"),
        ({"output": "a file", "format": "ctm", "overwrite": False}, "a file is there already; name another"),
    ]:
        with pytest.raises(JobError, match=message):
            run(**options)
    with pytest.raises(JobError, match="is a directory"):
        export(ExportSpec(table=str(table), format="ctm", output=f"{run.folder}/new/"))
    assert (run.folder / "a file").read_text() == "precious"
    (run.folder / "link").symlink_to("a file")
    for special in (run.folder / "link", "/dev/stdout", "/dev/null"):
        with pytest.raises(JobError, match="no ordinary file"):
            run("ctm", output=str(special))
    assert pq.read_table(table / "part-0.parquet").num_rows == 3


def test_no_table_and_no_log_is_written_into(run: Run) -> None:
    log = run.folder / "_t.runs"
    (run.folder / "t").mkdir()
    log.mkdir()
    (log / "table.json").write_text("{}")
    (run.folder / "link").symlink_to("t")
    (run.folder / "_mine.runs").mkdir()
    for output in (
        "t/x.jsonl",
        "t/a/b/x.jsonl",
        "link/x.jsonl",
        "_t.runs/table.json",
        "_t.runs/files/x.jsonl",
    ):
        with pytest.raises(JobError, match=r"lies in a table or in its log \(.*/_t\.runs\)"):
            run("jsonl", output)
    with pytest.raises(JobError, match="lies in a table"):
        run("srt", "_t.runs", per_clip=True)
    assert [path.name for path in log.iterdir()] == ["table.json"]
    assert not any((run.folder / "t").iterdir())
    run("jsonl", "_mine.runs/x.jsonl")


def test_a_file_is_replaced_only_as_a_whole(run: Run, table: Path) -> None:
    (run.folder / "out").write_text("before")
    whole = (table / "part-1.parquet").read_bytes()
    middle = len(whole) // 3
    (table / "part-1.parquet").write_bytes(whole[:8] + b"\xff" * middle + whole[8 + middle :])
    with pytest.raises(JobError, match=r"--table .*part-1\.parquet"):
        run("jsonl")
    assert (run.folder / "out").read_text() == "before"
    (table / "part-1.parquet").write_bytes(whole)
    run("jsonl")
    assert len((run.folder / "out").read_text().splitlines()) == 5
    assert sorted(path.name for path in run.folder.iterdir()) == ["out", "table"]


def test_an_output_that_cannot_be_written(run: Run) -> None:
    (run.folder / "a file").write_text("")
    for format in ("ctm", "srt"):
        with pytest.raises(JobError, match=r"--output .*a file/out"):
            run(format, "a file/out")


def contents(folder: Path) -> dict[str, str]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_text() for file in found}


@pytest.mark.parametrize("in_the_way", ["b.tar/long.srt", "b.tar", "b.tar/long.srt/x", "a b.tar/hello~2.srt"])
def test_files_that_are_there_already_are_kept_and_none_is_written(run: Run, in_the_way: str) -> None:
    precious = run.folder / "files" / in_the_way
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    with pytest.raises(JobError, match=r"files holds .*srt already|files: .*srt cannot be written, where"):
        run("srt", "files", overwrite=False)
    assert contents(run.folder / "files") == {in_the_way: "precious"}
    if in_the_way.endswith(".srt"):
        run("srt", "files", overwrite=True)
        assert contents(run.folder / "files")[in_the_way].startswith("1\n00:00:")
    else:
        with pytest.raises(
            JobError, match="a file has the name of a directory or a directory that of a file"
        ):
            run("srt", "files", overwrite=True)
        assert contents(run.folder / "files") == {in_the_way: "precious"}


def test_a_directory_keeps_its_other_files(run: Run) -> None:
    (run.folder / "files").mkdir()
    (run.folder / "files/notes.txt").write_text("mine")
    run("srt", "files", overwrite=False)
    assert len(contents(run.folder / "files")) == 5
    run("ctm", "files", per_clip=True, overwrite=False)
    assert contents(run.folder / "files")["notes.txt"] == "mine"
    with pytest.raises(
        JobError, match=r"holds a b\.tar/Hello\.ctm already; choose another directory, or --overw"
    ):
        run("ctm", "files", per_clip=True, overwrite=False)


def test_a_table_that_breaks_in_the_middle_leaves_no_half_of_a_directory(run: Run, table: Path) -> None:
    whole = (table / "part-1.parquet").read_bytes()
    middle = len(whole) // 3
    (table / "part-1.parquet").write_bytes(whole[:8] + b"\xff" * middle + whole[8 + middle :])
    with pytest.raises(JobError, match=r"--table .*part-1\.parquet"):
        run("jsonl", "files", per_clip=True)
    assert not (run.folder / "files").exists()
