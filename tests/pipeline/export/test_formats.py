"""Exports of a small table with every kind of row, read back by other readers where there are some."""

from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyannote.core import Segment
from pyannote.database.util import load_rttm

from pipeline.errors import JobError
from pipeline.export.job import Exported, export, for_the_eye
from pipeline.export.spec import ExportSpec
from pipeline.schema import output_schema
from pipeline.tasks.classify import LABEL_COLUMNS
from pipeline.tasks.diarize import DIARIZATION_COLUMNS, PROBABILITY_COLUMNS
from pipeline.tasks.embed import embedding_columns
from pipeline.tasks.transcribe import ALIGNMENT_COLUMNS, TRANSCRIPT_COLUMNS

CARRIED = pa.schema([("ref_text", pa.string()), ("language", pa.string()), ("duration", pa.float64())])
ALL = (
    TRANSCRIPT_COLUMNS
    | ALIGNMENT_COLUMNS
    | LABEL_COLUMNS
    | DIARIZATION_COLUMNS
    | PROBABILITY_COLUMNS
    | embedding_columns(3)
)
UNDECODABLE = {"stage": "decode", "code": "undecodable", "message": "no decoder accepts <it> & says so"}


def words(*spoken: tuple[str, float, float], confidence: float | None = 0.9) -> list[dict[str, Any]]:
    return [{"word": w, "start_s": s, "end_s": e, "confidence": confidence} for w, s, e in spoken]


def turns(*spoken: tuple[str, float, float]) -> list[dict[str, Any]]:
    return [{"speaker": w, "start_s": s, "end_s": e} for w, s, e in spoken]


def clip(clip_id: str, duration_s: float | None, **values: Any) -> dict[str, Any]:
    return {"clip_id": clip_id, "shard": f"/in/{clip_id.split('#')[0]}", "duration_s": duration_s, **values}


ROWS = [
    clip(
        "a b.tar#Hello",
        2.5004,
        ref_text="hallo world",
        language="en",
        duration=9.0,
        extra='{"id": 7}',
        text="hello world",
        text_confidence=0.9,
        words=words(("hello", 0.02, 0.42), ("world", 0.5, 0.98)),
        aligned_words=words(("hallo", 0.0, 0.4), ("world", 0.48, 1.0), confidence=None),
        alignment_score=-0.25,
        label="en",
        label_score=0.75,
        labels=[{"label": "en", "score": 0.75}, {"label": "de", "score": 0.25}],
        segments=turns(("speaker_0", 0.0, 1.5), ("speaker_1", 1.0, 2.5)),
        frame_activity=[1, 3, 2],
        frame_probabilities=[[0.5, 0.5]],
        embedding=[0.6, 0.0, 0.8],
        embedding_norm=12.5,
        encoder_s=0.01,
    ),
    clip("a b.tar#broken", None, error=UNDECODABLE),
    clip("a b.tar#hello", 1.2, text="a < b & c --> d", segments=[]),
    clip("b.tar#silent", 3.0, text="", words=[], segments=[], aligned_words=[]),
    clip(
        "b.tar#long",
        10.0,
        text="one two three",
        words=words(("one", 0.1, 0.4), ("two", 1.5, 1.9), ("three", 2.0, 2.5)),
        segments=turns(("speaker_0", 0.0, 4.0)),
    ),
]


def write(folder: Path, rows: list[dict[str, Any]], name: str = "part-0.parquet", **columns: Any) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    schema = output_schema(CARRIED, columns.get("annotations", ALL))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / name)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two files, whose order is that of their names, and a `_run/` that is not part of the table."""
    folder = write(tmp_path / "table", ROWS[3:], "part-1.parquet")
    write(folder, ROWS[:3], "part-0.parquet")
    write(folder / "_run" / "commit", ROWS[:1])
    (folder / "_run" / "table.json").write_text("{}")
    return folder


@dataclass(frozen=True)
class Run:
    """Exports into a folder of its own."""

    folder: Path
    table: Path

    def __call__(self, format: str, output: str = "out", **options: Any) -> Exported:
        given = {"table": str(self.table), "output": str(self.folder / output), **options}
        return export(ExportSpec(format=format, **given))

    def text(self, format: str, **options: Any) -> str:
        self(format, per_clip=False, **options)
        return (self.folder / "out").read_text(encoding="utf-8")

    def files(self, format: str, **options: Any) -> dict[str, str]:
        self(format, "files", per_clip=True, **options)
        found = (self.folder / "files").rglob("*")
        return {
            file.relative_to(self.folder / "files").as_posix(): file.read_text(encoding="utf-8")
            for file in found
            if file.is_file()
        }


@pytest.fixture
def run(tmp_path: Path, table: Path) -> Run:
    return Run(tmp_path, table)


# RTTM


def test_rttm(run: Run) -> None:
    assert run.text("rttm") == (
        "SPEAKER a%20b.tar#Hello 1 0.000 1.500 <NA> <NA> speaker_0 <NA> <NA>\n"
        "SPEAKER a%20b.tar#Hello 1 1.000 1.500 <NA> <NA> speaker_1 <NA> <NA>\n"
        "SPEAKER b.tar#long 1 0.000 4.000 <NA> <NA> speaker_0 <NA> <NA>\n"
    )


def test_rttm_is_read_by_pyannote(run: Run) -> None:
    run("rttm", "out.rttm")
    loaded = load_rttm(str(run.folder / "out.rttm"))
    assert {
        uri: sorted(
            (turn.start, turn.end, label) for turn, _, label in annotation.itertracks(yield_label=True)
        )
        for uri, annotation in loaded.items()
    } == {
        "a%20b.tar#Hello": [(0.0, 1.5, "speaker_0"), (1.0, 2.5, "speaker_1")],
        "b.tar#long": [(0.0, 4.0, "speaker_0")],
    }


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map("x#".__add__),
            st.lists(
                st.tuples(st.integers(0, 10**7), st.integers(1, 10**5)), min_size=1, max_size=5, unique=True
            ),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda pair: pair[0],
    )
)
def test_rttm_of_any_name_and_time(tmp_path: Path, clips: list[tuple[str, list[tuple[int, int]]]]) -> None:
    from pipeline.export.names import field

    rows = [
        clip(name, 1.0, segments=turns(*(("s p", a * 0.001, (a + n) * 0.001) for a, n in spans)))
        for name, spans in clips
    ]
    table = write(tmp_path / "any", rows)
    export(ExportSpec(table=str(table), format="rttm", output=str(tmp_path / "any.rttm")))
    loaded = load_rttm(str(tmp_path / "any.rttm"))
    assert set(loaded) == {field(name) for name, _ in clips}
    for name, spans in clips:
        annotation = loaded[field(name)]
        assert annotation.labels() == ["s%20p"]
        # The table's seconds are single-precision: a millisecond at most at the end of ten thousand seconds.
        for a, n in spans:
            wanted = Segment(a / 1000, (a + n) / 1000)
            assert any(
                abs(turn.start - wanted.start) <= 0.0011 and abs(turn.end - wanted.end) <= 0.0021
                for turn in annotation.itersegments()
            )


# CTM


def test_ctm(run: Run) -> None:
    assert run.text("ctm") == (
        "a%20b.tar#Hello 1 0.020 0.400 hello 0.900\n"
        "a%20b.tar#Hello 1 0.500 0.480 world 0.900\n"
        "b.tar#long 1 0.100 0.300 one 0.900\n"
        "b.tar#long 1 1.500 0.400 two 0.900\n"
        "b.tar#long 1 2.000 0.500 three 0.900\n"
    )


def test_ctm_of_the_reference(run: Run) -> None:
    assert run.text("ctm", reference=True) == (
        "a%20b.tar#Hello 1 0.000 0.400 hallo NA\na%20b.tar#Hello 1 0.480 0.520 world NA\n"
    )


def test_ctm_per_clip(run: Run) -> None:
    files = run.files("ctm")
    assert sorted(files) == ["a b.tar/Hello.ctm", "b.tar/long.ctm", "b.tar/silent.ctm"]
    assert files["b.tar/silent.ctm"] == ""
    assert files["a b.tar/Hello.ctm"].count("\n") == 2


# Subtitles


def test_srt_on_one_timeline(run: Run) -> None:
    assert run.text("srt") == (
        "1\n00:00:00,020 --> 00:00:00,980\nhello world\n\n"
        "2\n00:00:02,500 --> 00:00:03,700\na < b & c --> d\n\n"
        "3\n00:00:06,800 --> 00:00:07,100\none\n\n"
        "4\n00:00:08,200 --> 00:00:09,200\ntwo three\n\n"
    )


def test_srt_per_clip(run: Run) -> None:
    assert run.files("srt") == {
        "a b.tar/Hello.srt": "1\n00:00:00,020 --> 00:00:00,980\nhello world\n\n",
        "a b.tar/hello~2.srt": "1\n00:00:00,000 --> 00:00:01,200\na < b & c --> d\n\n",
        "b.tar/silent.srt": "",
        "b.tar/long.srt": (
            "1\n00:00:00,100 --> 00:00:00,400\none\n\n2\n00:00:01,500 --> 00:00:02,500\ntwo three\n\n"
        ),
    }


def test_vtt_on_one_timeline(run: Run) -> None:
    assert run.text("vtt") == (
        "WEBVTT\n\n"
        "NOTE a%20b.tar#Hello\n\n00:00:00.020 --> 00:00:00.980\nhello world\n\n"
        "NOTE a%20b.tar#hello\n\n00:00:02.500 --> 00:00:03.700\na &lt; b &amp; c --&gt; d\n\n"
        "NOTE b.tar#silent\n\n"
        "NOTE b.tar#long\n\n00:00:06.800 --> 00:00:07.100\none\n\n"
        "00:00:08.200 --> 00:00:09.200\ntwo three\n\n"
    )


def test_subtitles_of_the_reference(run: Run) -> None:
    assert run.files("srt", reference=True) == {
        "a b.tar/Hello.srt": "1\n00:00:00,000 --> 00:00:01,000\nhallo world\n\n",
        "b.tar/silent.srt": "",
    }


def test_clips_without_text_words_or_length_are_left_out_and_counted(run: Run) -> None:
    done = run("srt", "files", reference=True)
    assert (done.clips, dict(done.left_out)) == (2, {"undecodable": 1, "without text": 2})
    assert for_the_eye(done) == (
        "clips       2 written, 3 left out (without text 2, undecodable 1)\n"
        f"output      {run.folder / 'files'}, a file per clip"
    )


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), max_size=40),
    st.floats(0.5, 100),
)
def test_vtt_of_any_text_reads_back(tmp_path: Path, spoken: list[str], duration_s: float) -> None:
    step = duration_s / max(1, len(spoken))
    said = [(word, n * step, (n + 1) * step) for n, word in enumerate(spoken)]
    row = clip("x#1", duration_s, text=" ".join(spoken), words=words(*said))
    table = write(tmp_path / "any", [row])
    export(ExportSpec(table=str(table), format="vtt", output=str(tmp_path / "x.vtt"), per_clip=False))
    head, note, *blocks = (tmp_path / "x.vtt").read_bytes().decode().split("\n\n")
    assert (head, note, blocks.pop()) == ("WEBVTT", "NOTE x#1", "")
    read, last = [], 0.0
    for block in blocks:
        times, *text = block.split("\n")
        assert text
        assert "-->" not in "".join(text)
        start, end = (_seconds(time) for time in times.split(" --> "))
        assert last <= start < end <= duration_s + 0.001
        last = end
        plain = " ".join(text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        read += plain.split()
    assert read == " ".join(spoken).split()


def _seconds(time: str) -> float:
    match = re.fullmatch(r"(\d\d):(\d\d):(\d\d)\.(\d\d\d)", time)
    assert match
    hours, minutes, seconds, thousandths = map(int, match.groups())
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


# JSONL


def test_jsonl(run: Run) -> None:
    lines = [json.loads(line) for line in run.text("jsonl").splitlines()]
    assert lines[0] == {
        "clip_id": "a b.tar#Hello",
        "shard": "/in/a b.tar",
        "duration": 2.5004,
        "ref_text": "hallo world",
        "language": "en",
        "ref_duration": 9.0,
        "extra": {"id": 7},
        "text": "hello world",
        "text_confidence": 0.9,
        "words": words(("hello", 0.02, 0.42), ("world", 0.5, 0.98)),
        "aligned_words": [
            {"word": "hallo", "start_s": 0.0, "end_s": 0.4, "confidence": None},
            {"word": "world", "start_s": 0.48, "end_s": 1.0, "confidence": None},
        ],
        "alignment_score": -0.25,
        "label": "en",
        "label_score": 0.75,
        "labels": [{"label": "en", "score": 0.75}, {"label": "de", "score": 0.25}],
        "segments": turns(("speaker_0", 0.0, 1.5), ("speaker_1", 1.0, 2.5)),
        "encoder_s": 0.01,
    }
    assert lines[1] == {"clip_id": "a b.tar#broken", "shard": "/in/a b.tar", "error": UNDECODABLE}
    assert [line["clip_id"] for line in lines] == [row["clip_id"] for row in ROWS]


def test_jsonl_says_how_many_failed(run: Run) -> None:
    done = run("jsonl")
    assert (done.clips, done.failed, done.left_out.total()) == (5, 1, 0)
    assert for_the_eye(done).startswith("clips       5 written (1 of them with an error)\n")


def test_jsonl_with_embeddings(run: Run) -> None:
    first = json.loads(run.text("jsonl", embeddings=True).splitlines()[0])
    assert (first["embedding"], first["embedding_norm"]) == ([0.6, 0.0, 0.8], 12.5)
    assert "frame_activity" not in first


def test_jsonl_of_the_reference(run: Run) -> None:
    first = json.loads(run.text("jsonl", reference=True).splitlines()[0])
    assert (first["text"], first["pred_text"]) == ("hallo world", "hello world")
    assert first["words"][0] == {"word": "hallo", "start_s": 0.0, "end_s": 0.4, "confidence": None}
    assert first["pred_words"][0]["word"] == "hello"
    assert not first.keys() & {"ref_text", "aligned_words"}


def test_jsonl_per_clip_has_the_error_rows_too(run: Run) -> None:
    files = run.files("jsonl")
    assert sorted(files) == [
        "a b.tar/Hello.jsonl",
        "a b.tar/broken.jsonl",
        "a b.tar/hello~2.jsonl",
        "b.tar/long.jsonl",
        "b.tar/silent.jsonl",
    ]
    assert json.loads(files["a b.tar/broken.jsonl"])["error"] == UNDECODABLE


# What cannot be exported


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
        ({"output": "table/_run", "format": "ctm"}, "is a directory: name a file in it"),
        ({"output": "a file", "format": "srt"}, "is a file, and a directory is needed"),
    ]:
        with pytest.raises(JobError, match=message):
            run(**options)
    with pytest.raises(JobError, match="is a directory"):
        export(ExportSpec(table=str(table), format="ctm", output=f"{run.folder}/new/"))
    assert (run.folder / "a file").read_text() == "precious"
    (run.folder / "link").symlink_to("a file")
    for special in (run.folder / "link", "/dev/stdout", "/dev/null"):
        with pytest.raises(JobError, match="no ordinary file"):
            export(ExportSpec(table=str(table), format="ctm", output=str(special)))
    assert pq.read_table(table / "part-0.parquet").num_rows == 3


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


# Which table


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


# Memory


@pytest.mark.parametrize("format", ["jsonl", "vtt", "textgrid", "srt"])
def test_memory_does_not_grow_with_the_table(tmp_path: Path, format: str) -> None:
    said = words(*((f"word{n}", n * 0.5, n * 0.5 + 0.4) for n in range(20)))
    rows = [clip(f"a.tar#{n:06}", 30.0, text="…", words=said) for n in range(100)]
    small = write(tmp_path / "small", rows)
    for part in range(10):
        large = write(tmp_path / "large", rows, f"part-{part}.parquet")
    peaks = []
    for table in (small, large):
        spec = ExportSpec(table=str(table), format=format, output=str(tmp_path / "out"), per_clip=False)
        tracemalloc.start()
        export(spec)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + (1 << 19), peaks
