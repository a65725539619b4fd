"""Parquet columns: which is the audio, what of the others the table holds, and files that rows name."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough, merge, reserved_names
from pipeline.corpus.listing import discover, drop_listed_files
from pipeline.corpus.readers import parquet
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError, StorageFile, StorageOptions
from tests.pipeline.corpus.test_readers import (
    CLIPS,
    HF_AUDIO,
    NONE,
    PARQUET,
    STORAGE,
    codes,
    rows,
    shard,
    write_parquet,
)


def audio(*clips: bytes | None, path: str = "p.wav") -> pa.Array:
    return pa.array([None if clip is None else {"bytes": clip, "path": path} for clip in clips], HF_AUDIO)


def read(file: Shard) -> tuple[Passthrough, list[dict[str, Any]]]:
    """With the passthrough columns of the file itself."""
    carried = Passthrough(merge([PARQUET.columns(file, STORAGE)], reserved_names()))
    return carried, rows(PARQUET.tables(file, STORAGE, carried), carried)


@pytest.mark.parametrize(
    ("columns", "taken", "kept"),
    [
        ({"cat": audio(CLIPS[0]), "dog": audio(CLIPS[1]), "word": ["w"]}, 0, {"word": "w"}),
        ({"cat": audio(CLIPS[0]), "Audio": audio(CLIPS[1]), "raw": [CLIPS[2]]}, 1, {}),
        ({"Audio": audio(CLIPS[0]), "audio": audio(CLIPS[1])}, 1, {}),
        ({"audio": audio(CLIPS[0]), "list": [[{"bytes": CLIPS[1], "path": "x"}]]}, 0, {}),
        ({"audio": audio(CLIPS[0]), "mp3": [b"\xff\xfb sound"], "thumb": [b"zz"]}, 0, {"thumb": b"zz"}),
        ({"a": [b"zz"], "Wav": [CLIPS[1]], "b": [CLIPS[2]]}, 1, {"a": b"zz"}),
        ({"thumb": [b"zz"], "audio_data": [CLIPS[1]]}, 1, {"thumb": b"zz"}),
        ({"data": [b"no sound file"]}, 0, {}),
    ],
)
def test_one_audio_column_is_taken_and_no_other_copied(
    tmp_path: Path, columns: dict[str, Any], taken: int, kept: dict[str, Any]
) -> None:
    carried, (row,) = read(write_parquet(tmp_path / "a.parquet", columns))
    expected = next(iter(columns.values()))[0] if len(columns) == 1 else CLIPS[taken]
    assert row["audio"] == expected
    assert carried.schema.names == list(kept)
    assert {name: row[name] for name in kept} == kept
    assert row["extra"] is None
    # Nor for a run whose columns are those of another shard.
    (row,) = rows(PARQUET.tables(shard(tmp_path / "a.parquet", "parquet"), STORAGE, NONE))
    assert set(json.loads(row["extra"] or "{}")) == set(kept)


def test_a_sound_file_among_other_values_is_left_out(tmp_path: Path) -> None:
    values = [b"zz"] * 20 + [CLIPS[1], b"", None]
    file = write_parquet(tmp_path / "a.parquet", {"audio": audio(*CLIPS[:1] * 23), "blob": values})
    carried, found = read(file)
    assert carried.schema == pa.schema([("blob", pa.binary())])
    assert [row["blob"] for row in found] == [b"zz"] * 20 + [None, b"", None]
    assert {row["extra"] for row in found} == {None}


def test_which_audio_is_taken_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parquet._say_once.cache_clear()
    columns = {"as_a_cat": audio(CLIPS[0]), "as_a_dog": audio(CLIPS[1]), "raw": [CLIPS[2]], "word": ["w"]}
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            PARQUET.columns(write_parquet(tmp_path / f"{name}.parquet", columns), STORAGE)
    (message,) = caplog.messages
    assert "column as_a_cat;" in message
    assert message.endswith(": as_a_dog, raw")


def test_columns_in_another_case_reach_duckdb(tmp_path: Path) -> None:
    columns = {"Audio": audio(CLIPS[0]), "Text": ["reference"], "Clip_ID": ["a"], "Error": ["none"]}
    carried, (row,) = read(write_parquet(tmp_path / "a.parquet", columns))
    assert carried.schema.names == ["ref_Text", "ref_Clip_ID", "ref_Error"]
    assert row["audio"] == CLIPS[0]
    written = pa.Table.from_pylist(
        [{"text": "transcript", **{name: row[name] for name in carried.schema.names}}]
    )
    pq.write_table(written, tmp_path / "out.parquet")
    query = f"SELECT text, ref_text, ref_clip_id FROM '{tmp_path}/out.parquet'"
    assert duckdb.sql(query).fetchall() == [("transcript", "reference", "a")]


def test_the_same_name_twice(tmp_path: Path) -> None:
    table = pa.table([audio(CLIPS[0]), pa.array(["1"]), pa.array(["2"])], ["audio", "same", "same"])
    pq.write_table(table, tmp_path / "a.parquet")
    carried, (row,) = read(shard(tmp_path / "a.parquet", "parquet"))
    assert carried.schema.names == ["same"]
    assert (row["same"], json.loads(row["extra"])) == ("1", {"same": "2"})


# Rows that name files


def folder(path: Path, audio_column: pa.Array, **options: Any) -> list[str]:
    """The names of what is left of an input with a Parquet file, and two loose files beside it."""
    (path / "wavs").mkdir(exist_ok=True)
    for name in ("wavs/a.wav", "b.wav"):
        (path / name).write_bytes(CLIPS[0])
    write_parquet(path / "list.parquet", {"audio": audio_column, "n": range(len(audio_column))}, **options)
    shards = discover([str(path)], STORAGE, outputs=[str(path / "out")])
    assert [file.name for file in shards] == ["b.wav", "list.parquet", "wavs/a.wav"]
    return [file.name for file in drop_listed_files(shards, STORAGE)]


def paths(*values: tuple[bytes | None, str | None] | None) -> pa.Array:
    return pa.array([None if v is None else {"bytes": v[0], "path": v[1]} for v in values], HF_AUDIO)


def test_a_file_that_a_row_names_is_no_clip_besides(tmp_path: Path) -> None:
    for named in (
        "wavs/a.wav",
        "./wavs/../wavs/a.wav",
        f"{tmp_path}/wavs/a.wav",
        (tmp_path / "wavs/a.wav").as_uri(),
    ):
        column = paths(
            (CLIPS[1], None), None, (None, named), (None, None), (None, ""), (None, "hf://x/b.wav")
        )
        assert folder(tmp_path, column, row_group_size=2) == ["b.wav", "list.parquet"]
        found = rows(PARQUET.tables(shard(tmp_path / "list.parquet", "parquet"), STORAGE, NONE))
        assert [code for _, code in codes(found)] == [None, "no_audio", None, "no_audio", "no_audio", None]
        with STORAGE.open(found[2]["source"]) as file:
            assert file.read() == CLIPS[0]
    nothing = pa.StructArray.from_arrays([pa.nulls(2), pa.array(["wavs/a.wav", "b.wav"])], ["bytes", "path"])
    assert folder(tmp_path, nothing) == ["list.parquet"]
    found = rows(PARQUET.tables(shard(tmp_path / "list.parquet", "parquet"), STORAGE, NONE))
    assert [row["source"] for row in found] == [f"{tmp_path}/wavs/a.wav", f"{tmp_path}/b.wav"]


def test_a_name_beside_bytes_is_but_a_name(tmp_path: Path) -> None:
    column = paths(*[(CLIPS[1], "b.wav")] * 3, (b"", "b.wav"), (None, "wavs/a.wav"), (CLIPS[2], "wavs/a.wav"))
    assert folder(tmp_path, column, row_group_size=2) == ["b.wav", "list.parquet"]


def test_a_damaged_parquet_lists_nothing(tmp_path: Path) -> None:
    column = paths((None, "wavs/a.wav"))
    assert folder(tmp_path, column) == ["b.wav", "list.parquet"]
    file = tmp_path / "list.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    shards = discover([str(tmp_path)], STORAGE, outputs=[])
    assert drop_listed_files(shards, STORAGE) == shards


class _CountingStorage(Storage):
    def open(self, uri: str, **arguments: Any) -> StorageFile:
        opened = super().open(uri, **arguments)
        read = opened.read

        def counted(size: int | None = -1, /) -> bytes:
            data = read(size)
            counts.append(len(data))
            return data

        opened.read = counted  # type: ignore[method-assign]
        return opened


counts: list[int] = []


def test_audio_is_read_only_where_it_may_be_absent(tmp_path: Path) -> None:
    """A folder of Parquet files with their bytes, and of loose files, is not read twice."""
    clips = [bytes([i]) * (1 << 20) for i in range(8)]
    column = pa.array([{"bytes": clip, "path": f"{i}.wav"} for i, clip in enumerate(clips)], HF_AUDIO)
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "row_group_size": 2}
    file = write_parquet(tmp_path / "a.parquet", {"audio": column}, **options)
    storage = _CountingStorage(StorageOptions())
    counts.clear()
    assert list(PARQUET.sources(file, storage, lambda source: False)) == []
    assert sum(counts) < 1 << 20
    counts.clear()
    assert list(PARQUET.sources(file, storage, lambda source: source == f"{tmp_path}/5.wav")) == []
    assert 2 << 20 < sum(counts) < 3 << 20


def test_a_failure_of_storage_is_no_answer(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"audio": audio(CLIPS[0])})
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(StorageError, match="does not exist"):
        list(PARQUET.sources(file, STORAGE, lambda source: True))


def test_paths_as_plain_text_are_refused(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "strings.parquet", {"path": ["wavs/a.wav"], "text": ["t"]})
    with pytest.raises(
        JobError, match=r"strings\.parquet has no audio column.*path \(string\).*JSONL manifest"
    ):
        PARQUET.columns(file, STORAGE)
    (row,) = rows(PARQUET.tables(file, STORAGE, NONE))
    assert codes([row]) == [("", "broken_shard")]
    assert "path (string)" in row["error"]["message"]
