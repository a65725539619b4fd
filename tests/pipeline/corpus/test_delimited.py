"""TSV and CSV as people and programs write them: quoted or not, ragged, with numbers, Common Voice's."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus import readers
from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Cell, Passthrough, reserved_names
from pipeline.corpus.listing import discover, drop_listed_files
from pipeline.corpus.readers import READERS, manifest
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())
READER = READERS["delimited"]
LINES = "path\ttext\na.wav\tone\nb.wav\ttwo\n"


def shard(path: Path) -> Shard:
    return Shard(str(path), path.name, "delimited", path.stat().st_size, "v1")


def read(
    path: Path, *columns: str, slice: Any = None, types: pa.Schema | None = None
) -> list[dict[str, Any]]:
    """The rows, with these columns as text unless types say otherwise."""
    schema = types or pa.schema([(name, pa.string()) for name in columns])
    tables = READER.tables(shard(path), STORAGE, Passthrough(schema, frozenset()), slice)
    return [row for table in tables for row in table.to_pylist()]


def found(path: Path, slice: Any = None) -> list[tuple[str, str]]:
    """Key, and where the audio is, below the table's folder, or the error's code."""
    return [
        (
            row["clip_id"].split("#", 1)[1],
            row["error"]["code"] if row["error"] else row["source"].removeprefix(f"{path.parent}/"),
        )
        for row in read(path, slice=slice)
    ]


def written(tmp_path: Path, text: str, name: str = "x.tsv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def taken_apart(path: Path, parts: int) -> list[dict[str, Any]]:
    """The rows of all slices, each of which holds few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "_RECORDS_IN_A_SLICE", parts)
        patch.setattr(type(READER), "clip_bytes", 1)
        slices = READER.slices(shard(path), STORAGE)
    return [row for slice in slices for row in read(path, "text", "more", slice=slice)]


ANY = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8) | st.text(
    '",;\t ab\n', max_size=8
)


@given(
    texts=st.lists(st.tuples(ANY, ANY), max_size=12),
    delimiter=st.sampled_from(",;"),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from([b"", codecs.BOM_UTF8]),
    packed=st.booleans(),
    parts=st.integers(1, 5),
)
def test_what_a_csv_writer_wrote_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[tuple[str, str]],
    delimiter: str,
    end: str,
    mark: bytes,
    packed: bool,
    parts: int,
) -> None:
    """Line breaks in cells too; whole or in slices."""
    buffer = io.StringIO(newline="")
    texts = [(one.replace("\n", end), two.replace("\n", end)) for one, two in texts]
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=end)
    writer.writerows(
        [("text", "path", "more"), *((one, f"{n}.wav", two) for n, (one, two) in enumerate(texts))]
    )
    data = mark + buffer.getvalue().encode()
    path = tmp_path_factory.mktemp("csv") / ("x.csv.gz" if packed else "x.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    rows = read(path, "text", "more")
    assert [(row["text"] or "", row["more"] or "") for row in rows] == texts
    assert [(row["clip_id"], row["source"]) for row in rows] == [
        (f"{path.name}#{n + 1}", f"{path.parent}/{n}.wav") for n in range(len(texts))
    ]
    assert taken_apart(path, parts) == rows


UNQUOTED = st.text(st.characters(codec="utf-8", exclude_characters='\t\r\n"'), max_size=8)
IN_A_LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8) | st.text('"\t ab')


@given(texts=st.lists(st.tuples(UNQUOTED, UNQUOTED), max_size=12), parts=st.integers(1, 5))
def test_a_tsv_without_quotes_is_taken_as_it_stands(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]], parts: int
) -> None:
    lines = ["text\tpath\tmore", *(f"{one}\t{n}.wav\t{two}" for n, (one, two) in enumerate(texts))]
    path = written(tmp_path_factory.mktemp("tsv"), "\n".join(lines))
    rows = read(path, "text", "more")
    assert [(row["text"] or "", row["more"] or "") for row in rows] == texts
    assert taken_apart(path, parts) == rows


@given(texts=st.lists(IN_A_LINE, max_size=12))
def test_a_tsv_may_be_quoted_as_csv_is(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """But a line is a record: in TSV a lone quote is more common than a cell with line breaks."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter="\t").writerows([("text", "path"), *((text, "a.wav") for text in texts)])
    rows = read(written(tmp_path_factory.mktemp("tsv"), buffer.getvalue()), "text")
    assert [row["text"] or "" for row in rows] == texts


@given(data=st.binary(max_size=60) | st.text('\t",;\n\rab', max_size=60).map(str.encode))
def test_nothing_below_a_header_stops_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    for name, header in (("x.tsv", b"path\ttext\n"), ("x.csv", b"path,text\n")):
        path = tmp_path_factory.mktemp("any") / name
        path.write_bytes(header + data + b"\n" + header.replace(b"path", b"last.wav"))
        rows = read(path, "text")
        if data.count(b'"') % 2 == 0 or name == "x.tsv":
            assert (rows[-1]["source"], rows[-1]["text"]) == (f"{path.parent}/last.wav", "text")
        assert {row["error"] and row["error"]["code"] for row in rows} <= {None, "bad_record"}
        assert len({row["clip_id"] for row in rows}) == len(rows)
        assert taken_apart(path, 1) == read(path, "text", "more")


def test_quotes_that_are_none_of_csv_stay(tmp_path: Path) -> None:
    """Common Voice quotes nothing, and a quotation may begin in one sentence and end in another."""
    sentences = ['"Go home.', 'Come in."', '"Go," he said.', 'He said "no".', '5" nails', '"', '"a" "b"']
    lines = ["path\ttext", *(f"a.wav\t{sentence}" for sentence in sentences), 'b.wav\t"all of it"']
    rows = read(written(tmp_path, "\n".join(lines)), "text")
    assert [row["text"] for row in rows] == [*sentences, "all of it"]
    nails = read(
        written(
            tmp_path, 'path,text\na.wav,5" nails\nb.wav,"two\nlines"\nc.wav,"never closed\nd.wav,d\n', "x.csv"
        ),
        "text",
    )
    assert [(row["clip_id"][-1], row["text"]) for row in nails] == [
        ("1", '5" nails'),
        ("2", "two\nlines"),
        ("3", '"never closed'),
        ("4", "d"),
    ]


def test_ragged_lines_are_error_rows_and_blank_ones_have_a_number(tmp_path: Path) -> None:
    text = LINES + "c.wav\n\nd.wav\tfour\tmore\n \t \n\te\nf.wav\t\n"
    path = written(tmp_path, text.replace("\n", "\r\n"))
    assert found(path) == [
        ("1", "a.wav"),
        ("2", "b.wav"),
        ("3", "bad_record"),
        ("5", "bad_record"),
        ("7", "bad_record"),
        ("8", "f.wav"),
    ]
    messages = [row["error"]["message"] for row in read(path) if row["error"]]
    assert messages[:2] == ["the line has 1 cells, the header 2", "the line has 3 cells, the header 2"]
    assert messages[2].endswith("names an audio file")
    (row,) = [row for row in read(path, "text") if row["clip_id"].endswith("#8")]
    assert row["text"] is None


def test_lines_that_are_no_utf8_are_error_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(b"path\ttext\na.wav\tcaf\xe9\nb.wav\tcaf\xc3\xa9\n")
    assert found(path) == [("1", "bad_record"), ("2", "b.wav")]
    path.write_bytes(LINES.replace("one", "caf\u00e9").encode("utf-16"))
    assert [row["text"] for row in read(path, "text")] == ["caf\u00e9", "two"]
    assert taken_apart(path, 1) == read(path, "text", "more")


def test_numbers_are_numbers_and_text_stays_text(tmp_path: Path) -> None:
    lines = [
        "path\tdigit\tid\tlength\ttext\tmixed\tnone",
        "a.wav\t0\t007\t1.50\tone\t1.50\t",
        "b.wav\t-12\t012\t3\ttwo\tx\t",
        "c.wav\t7.5\t7\tn/a\t3.10\t1e5\t",
    ]
    path = written(tmp_path, "\n".join(lines))
    schema = READER.columns(shard(path), STORAGE)
    assert {field.name: field.type for field in schema} == {
        **dict.fromkeys(("path", "id", "text", "mixed", "none", "length"), pa.string()),
        "digit": pa.float64(),
    }
    schema = schema.set(schema.get_field_index("length"), pa.field("length", pa.float64()))
    rows = read(path, types=schema)
    assert [row["digit"] for row in rows] == [0.0, -12.0, 7.5]
    assert [row["id"] for row in rows] == ["007", "012", "7"]
    assert [row["length"] for row in rows] == [1.5, 3.0, None]
    assert [row["text"] for row in rows] == ["one", "two", "3.10"]
    assert [row["mixed"] for row in rows] == ["1.50", "x", "1e5"]
    assert [row["none"] for row in rows] == [None, None, None]
    assert [row["extra"] for row in rows] == [None, None, '{"length": "n/a"}']


@given(number=st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_cell_is_the_number_that_it_spells(number: float) -> None:
    assert Cell(repr(number)).meant == number


@pytest.mark.parametrize(
    "text",
    ["007", "+1", "1,5", ".5", "5.", "nan", "inf", "1e999", "0x1", "1_0", " 1", "\u0663", "-", "9" * 5000],
)
def test_other_text_is_no_number(text: str) -> None:
    assert Cell(text).meant == text


@pytest.mark.parametrize(
    ("columns", "cells", "part"),
    [
        ("offset\tduration", "1.5\t2", (1.5, 2.0)),
        ("start\tduration", "1.5\t2", (1.5, 2.0)),
        ("start\tend", "1.5\t2", (1.5, 0.5)),
        ("start\tend\tduration", "1.5\t9\t2", (1.5, 2.0)),
        ("start\ttext", "0\tx", (0.0, None)),
        ("start\tduration", "\t2", (None, None)),
        ("text\tduration", "x\t2", (None, None)),
        ("end\ttext", "3\tx", (None, None)),
        ("start\tend", "2\t1.5", None),
        ("start\tend", "-1\t1.5", None),
        ("start\tend", "0:01\t0:02", None),
    ],
)
def test_parts_of_recordings(
    tmp_path: Path, columns: str, cells: str, part: tuple[float, float] | None
) -> None:
    (row,) = read(written(tmp_path, f"path\t{columns}\na.wav\t{cells}\n"))
    if part is None:
        assert row["error"]["code"] == "bad_record"
    else:
        assert (row["start_s"], row["length_s"], row["error"]) == (*part, None)


def test_the_extent_is_that_of_the_durations(tmp_path: Path) -> None:
    path = written(tmp_path, "path\tduration\na.wav\t1.5\nb.wav\t2\nc.wav\t\n")
    extent = READER.extent(shard(path), STORAGE)
    assert (extent.clips, extent.seconds, extent.timed) == (3, 3.5, 2)


def test_places_of_audio(tmp_path: Path) -> None:
    lines = "path\ttext\nwav/a.wav\tx\n../b.wav\tx\n/c.wav\tx\ns3://bucket/d.wav\tx\n"
    assert [place for _, place in found(written(tmp_path, lines))] == [
        "wav/a.wav",
        f"{tmp_path.parent}/b.wav",
        "/c.wav",
        "s3://bucket/d.wav",
    ]


def test_common_voice_keeps_its_clips_in_a_folder(tmp_path: Path) -> None:
    lines = "client_id\tpath\tsentence\nc1\tcommon_voice_en_1.mp3\tOne.\nc1\tother/x.mp3\tTwo.\n"
    path = written(tmp_path, lines)
    assert [place for _, place in found(path)] == ["clips/common_voice_en_1.mp3", "other/x.mp3"]
    assert read(path, "path")[0]["path"] == "common_voice_en_1.mp3"


def test_headers(tmp_path: Path) -> None:
    path = written(tmp_path, "text, file_name ,text,text,\none,a.wav,two,three,\n", "x.csv")
    assert [field.name for field in READER.columns(shard(path), STORAGE)] == [
        "text",
        "file_name",
        "text~2",
        "text~3",
    ]
    (row,) = read(path, "text", "text~2", "text~3")
    assert (row["text"], row["text~2"], row["text~3"], row["extra"]) == (
        "one",
        "two",
        "three",
        '{"file_name": "a.wav"}',
    )


def test_a_table_is_a_manifest_where_a_column_names_audio(tmp_path: Path) -> None:
    files = {
        "labels.tsv": LINES,
        "META.CSV": LINES.replace("\t", ","),
        "excel.csv": LINES.replace("\t", ";"),
        "tabs.csv": LINES,
        "empty.tsv": "path\ttext\n",
        "ragged.tsv": "path\ttext\nx\n",
    }
    others = {
        "x.tsv": "speaker\tage\ns1\t40\n",
        "x.csv": "start,end,word\n0,1,one\n",
        "pipes.csv": "path|text\na.wav|one\n",
        "nothing.csv": "",
        "no header.tsv": "a.wav\tone\n",
    }
    for name, text in {**files, **others, "a.wav": "x", "c.wav": "x"}.items():
        written(tmp_path, text, name)
    (tmp_path / "z.tsv.gz").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "latin1.tsv").write_bytes(b"path\t\xe9\na.wav\t1\n")
    aside: Counter[str] = Counter()
    shards = discover([str(tmp_path)], STORAGE, outputs=["elsewhere"], left_aside=aside)
    names = [shard.name for shard in drop_listed_files(shards, STORAGE)]
    assert names == sorted([*files, "c.wav", "z.tsv.gz"])
    assert aside == {".tsv": 3, ".csv": 3}


def test_the_layouts_of_the_shared_recordings(shared_data: Path) -> None:
    for folder, clips in (("digits", 2700), ("strings", 60), ("librispeech", 40)):
        shards = discover([str(shared_data / folder)], STORAGE, outputs=["elsewhere"])
        (labels,) = drop_listed_files(shards, STORAGE)
        assert labels.name == "labels.tsv"
        columns = READER.columns(labels, STORAGE)
        passthrough = Passthrough(columns, reserved_names())
        slices = READER.slices(labels, STORAGE) or [None]
        assert len(slices) == (11 if folder == "digits" else 1)
        rows = [
            row
            for slice in slices
            for table in READER.tables(labels, STORAGE, passthrough, slice)
            for row in table.to_pylist()
        ]
        assert len(rows) == clips
        assert all(
            STORAGE.exists(row["source"]) and row["error"] is None and row["extra"] is None for row in rows
        )
        assert columns.field("duration_s").type == pa.float64()
        assert columns.field("speaker").type == (pa.int64() if folder == "librispeech" else pa.string())


def test_the_endings_are_recognised() -> None:
    assert {readers.recognise(f"A.{ending}") for ending in ("tsv", "CSV", "tsv.bz2", "csv.zst")} == {READER}
