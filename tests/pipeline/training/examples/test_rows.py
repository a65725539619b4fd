"""The rows of feature tables."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest

from pipeline.errors import Code, JobError
from pipeline.storage import Storage, StorageOptions
from pipeline.training.examples.rows import Rows
from tests.pipeline.training.tables import STORAGE, broken, clip, rows_of, write


def test_rows_come_by_file_name_with_their_places(tmp_path: Path) -> None:
    second = write(tmp_path / "b.parquet", [clip("x#3", ref_text="c")])
    first = write(tmp_path / "a.parquet", [clip("x#1", 7, ref_text="a"), clip("x#2", None, ref_text=None)])
    rows = Rows.read([second, first], STORAGE, ["text"])
    assert rows.files == [first, second]
    assert rows.table.select(
        ["clip.id", "clip.file", "clip.row", "clip.frames", "clip.silent", "text"]
    ).to_pydict() == {
        "clip.id": ["x#1", "x#2", "x#3"],
        "clip.file": [0, 0, 1],
        "clip.row": [0, 1, 0],
        "clip.frames": [7, None, 50],
        "clip.silent": [False, True, False],
        "text": ["a", None, "c"],
    }


def test_errors_are_told_and_are_not_silence(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [broken("x#1", Code.UNDECODABLE, "no WAV"), clip("x#2")])
    assert rows.table["clip.code"].to_pylist() == ["undecodable", None]
    assert rows.table["clip.message"].to_pylist() == ["no WAV", None]
    assert rows.table["clip.silent"].to_pylist() == [False, False]


@pytest.mark.parametrize("asked", ["text", "ref_text", "TEXT", "speed", "code"])
def test_columns_answer_to_the_inputs_names(tmp_path: Path, asked: str) -> None:
    rows = rows_of(tmp_path, [clip("x#1", ref_text="a", ref_speed="a", code="a")], asked)
    assert rows.table[asked].to_pylist() == ["a"]


def test_numbers_are_labels_too_and_a_file_may_lack_a_column(tmp_path: Path) -> None:
    with_number = write(tmp_path / "a.parquet", [clip("x#1", digit=7)])
    without = write(tmp_path / "b.parquet", [clip("x#2")])
    assert Rows.read([with_number, without], STORAGE, ["digit"]).table["digit"].to_pylist() == ["7", None]


def test_a_column_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no column 'txt', but one 'text'; there are: ref_text, speaker\."):
        rows_of(tmp_path, [clip("x#1", ref_text="a", speaker="s")], "txt")
    with pytest.raises(JobError, match=r"the column 'words' holds list<.*>, not text or numbers"):
        rows_of(tmp_path, [clip("x#1", ref_words=["a"])], "words")


def test_one_row_of_each_clip_at_its_own_speed(tmp_path: Path) -> None:
    rows = [("a", 0.9), ("a", 1.0), ("b", 1.1), ("b", 0.95), ("c", 1.0), ("a", 1.0)]
    clips = [clip(name, speed=speed, n=n) for n, (name, speed) in enumerate(rows)]
    assert rows_of(tmp_path, clips, "n").once().table["n"].to_pylist() == ["1", "3", "4"]
    assert len(rows_of(tmp_path, []).once()) == 0


def test_nobody_is_on_both_sides_of_a_split(tmp_path: Path) -> None:
    clips = [clip(f"x#{n}", 5, speaker=None if n % 10 == 0 else f"s{n % 40}") for n in range(400)]
    rows = rows_of(tmp_path, clips, "speaker")
    kept, held_out = rows.split(0.2, "speaker")
    speakers = [set(side.table["speaker"].drop_null().to_pylist()) for side in (kept, held_out)]
    assert speakers[0].isdisjoint(speakers[1])
    assert len(kept) + len(held_out) == 400
    assert 0.05 < len(held_out) / 400 < 0.4
    # A corpus that grows keeps its sides.
    more = rows_of(
        tmp_path / "more", [*clips, *(clip(f"y#{n}", 5, speaker=f"t{n}") for n in range(40))], "speaker"
    )
    held_later = more.split(0.2, "speaker")[1].table["clip.id"].to_pylist()
    assert set(held_out.table["clip.id"].to_pylist()) <= set(held_later)
    # Each clip by itself.
    by_clip = rows.split(0.2, "n")[1]
    assert 0.1 < len(by_clip) / 400 < 0.3
    assert len(rows.split(0.0, "speaker")[1]) == 0


@pytest.mark.parametrize("share", [0.001, 0.999])
@pytest.mark.parametrize("voices", [2, 3, 7])
def test_of_a_few_speakers_one_is_held_out_and_one_stays(tmp_path: Path, voices: int, share: float) -> None:
    rows = rows_of(tmp_path, [clip(f"x#{n}", 5, speaker=f"s{n % voices}") for n in range(21)], "speaker")
    kept, held_out = rows.split(share, "speaker")
    fewest = len((held_out if share < 0.5 else kept).names("speaker"))
    assert fewest == 1
    assert len(kept.names("speaker")) + len(held_out.names("speaker")) == voices


@pytest.mark.parametrize("columns", [{}, {"speaker": "anna"}, {"speaker": None}])
def test_where_no_two_speakers_are_named_clips_are_held_out(tmp_path: Path, columns: dict[str, str]) -> None:
    clips = [clip(f"x#{n}", 5, **columns) for n in range(30)]
    kept, held_out = rows_of(tmp_path, clips, *columns).split(0.01, "speaker")
    assert (len(kept), len(held_out)) == (29, 1)
    alone = rows_of(tmp_path / "one", clips[:1], *columns).split(0.5, "speaker")
    assert list(map(len, alone)) == [1, 0]


def test_optional_columns_are_read_where_they_are(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", [clip("x#1", ref_text="a")])
    rows = Rows.read([uri], STORAGE, ["text"], optional=("text", "speaker"))
    assert rows.table.column_names[-1] == "text"
    assert (rows.names("text"), rows.names("speaker")) == ({"a"}, set())


def test_tables_lie_in_object_stores_too(tmp_path: Path, bucket: str) -> None:
    local = write(tmp_path / "a.parquet", [clip(f"x#{n}", 5, ref_text=str(n)) for n in range(10)])
    boto3.client("s3").upload_file(local, bucket.removeprefix("s3://"), "table/a.parquet")
    storage = Storage(StorageOptions().with_environment())
    rows = Rows.read([f"{bucket}/table/a.parquet"], storage, ["text"])
    assert rows.table.equals(Rows.read([local], STORAGE, ["text"]).table)
