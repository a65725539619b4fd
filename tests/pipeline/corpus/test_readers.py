"""The shard readers on real files, whole and damaged."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough, merge, reserved_names
from pipeline.corpus.readers import READERS, manifest
from pipeline.errors import JobError
from pipeline.schema import read_schema
from pipeline.storage import Storage, StorageError, StorageFile, StorageOptions

STORAGE = Storage(StorageOptions())
PARQUET, TAR, MANIFEST = (READERS[name] for name in ("parquet", "tar", "manifest"))
NONE = Passthrough(pa.schema([]))


def flac(seed: int, samples: int = 800) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, samples)
    soundfile.write(buffer, noise, 16_000, format="FLAC")
    return buffer.getvalue()


def shard(path: Path, format: str) -> Shard:
    return Shard(str(path), path.name, format, path.stat().st_size if path.exists() else 0, "v1")


def rows(tables: Iterable[pa.Table], carried: Passthrough = NONE) -> list[dict[str, Any]]:
    found = []
    for table in tables:
        assert table.schema == read_schema(carried.schema)
        table.validate(full=True)
        found += table.to_pylist()
    return found


def codes(found: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(row["clip_id"].split("#", 1)[1], row["error"] and row["error"]["code"]) for row in found]


# Parquet


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Shard:
    pq.write_table(pa.table(columns), path, **options)
    return shard(path, "parquet")


HF_AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_parquet_of_hugging_face(tmp_path: Path) -> None:
    clips = [flac(i) for i in range(3)]
    audio = [{"bytes": clip, "path": "ignored.flac"} for clip in clips]
    audio += [{"bytes": None, "path": "sub/../x.wav"}, {"bytes": None, "path": "s3://b/y.wav"}]
    audio += [{"bytes": None, "path": None}, None]  # type: ignore[list-item]
    columns = {
        "image": pa.array([b"x"] * 7),
        "audio": pa.array(audio, HF_AUDIO),
        "text": pa.array([f"t{i}" for i in range(7)]).dictionary_encode(),
        "new": list(range(7)),
    }
    file = write_parquet(tmp_path / "a.parquet", columns, row_group_size=2)
    assert PARQUET.columns(file, STORAGE) == pa.schema(
        [("image", pa.binary()), ("text", pa.string()), ("new", pa.int64())]
    )
    carried = Passthrough(pa.schema([("ref_text", pa.string())]))
    found = rows(PARQUET.tables(file, STORAGE, carried), carried)
    assert [row["clip_id"] for row in found] == [f"a.parquet#{i}" for i in range(7)]
    assert [row["audio"] for row in found] == [*clips, None, None, None, None]
    assert [row["source"] for row in found] == [None] * 3 + [f"{tmp_path}/x.wav", "s3://b/y.wav", None, None]
    assert [row["ref_text"] for row in found] == [f"t{i}" for i in range(7)]
    assert json.loads(found[4]["extra"]) == {"image": "eA==", "new": 4}
    assert [code for _, code in codes(found)] == [None] * 5 + ["no_audio"] * 2
    part = rows(PARQUET.tables(file, STORAGE, carried, slice=range(1, 3)), carried)
    assert part == found[2:6]


def test_parquet_of_plain_bytes_and_table_size(tmp_path: Path) -> None:
    clips = [bytes([i]) * (3 << 20) for i in range(5)]
    columns = {"wav": pa.array(clips, pa.large_binary()), "other": [b"a"] * 5}
    file = write_parquet(tmp_path / "b.parquet", columns, compression="none", use_dictionary=False)
    tables = list(PARQUET.tables(file, STORAGE, NONE))
    assert [table.num_rows for table in tables] == [2, 2, 1]
    assert [row["audio"] for row in rows(tables)] == clips


def test_parquet_without_audio_names_its_columns(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "c.parquet", {"a": [1], "one": [b"1"], "two": [b"2"]})
    with pytest.raises(JobError, match=r"c\.parquet has no audio column.*one \(binary\)"):
        PARQUET.columns(file, STORAGE)
    (row,) = rows(PARQUET.tables(file, STORAGE, NONE))
    assert codes([row]) == [("", "broken_shard")]
    assert "two (binary)" in row["error"]["message"]


def test_parquet_damaged_row_group_keeps_the_others(tmp_path: Path) -> None:
    clips = [flac(i) for i in range(6)]
    path = tmp_path / "d.parquet"
    file = write_parquet(path, {"audio": clips}, row_group_size=2, use_dictionary=False, compression="none")
    at = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[at : at + 12] = b"\xff" * 12
    path.write_bytes(data)
    found = rows(PARQUET.tables(file, STORAGE, NONE))
    assert codes(found) == [
        ("0", None),
        ("1", None),
        ("2", "broken_shard"),
        ("3", "broken_shard"),
        ("4", None),
        ("5", None),
        ("", "broken_shard"),
    ]
    assert [row["audio"] for row in found] == [*clips[:2], None, None, *clips[4:], None]
    assert "row group 1" in found[-1]["error"]["message"]


def test_parquet_cut_short_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    file = write_parquet(path, {"audio": [flac(0)]})
    path.write_bytes(path.read_bytes()[:-20])
    assert codes(rows(PARQUET.tables(file, STORAGE, NONE))) == [("", "broken_shard")]
    assert PARQUET.columns(file, STORAGE) == NONE.schema
    path.unlink()
    (row,) = rows(PARQUET.tables(file, STORAGE, NONE))
    assert row["error"]["code"] == "undelivered"
    assert row["error"]["message"] == f"{path} does not exist"


# Tar


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Shard:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return shard(path, "tar")


CLIPS = [flac(i) for i in range(4)]
SAMPLES = [
    (f"{i}.{end}", data) for i in range(4) for end, data in (("flac", CLIPS[i]), ("txt", b"t%d\n" % i))
]


@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
def test_tar_samples_and_their_values(tmp_path: Path, name: str) -> None:
    members = [
        ("./d/x.FLAC", CLIPS[0]),
        ("./d/x.txt", b" hello\n"),
        ("./d/x.json", b'{"n": 1, "tags": ["a"]}'),
        ("./d/x.cls", b"7"),
        ("./d/x.npy", b"\xff\xfe"),
        ("__MACOSX/d/._y.flac", b"?"),
        ("y.json", b"{broken"),
        ("y.wav", CLIPS[1]),
        ("z.txt", b"alone"),
        ("./d/x.flac", CLIPS[2]),
        ("s.1.wav", CLIPS[3]),
        ("s.2.wav", CLIPS[0]),
    ]
    file = write_tar(tmp_path / name, members)
    samples = TAR.samples(file, STORAGE)
    assert samples[:3] == [{"text": "hello", "n": 1, "tags": ["a"], "cls": "7"}, {}, {"text": "alone"}]
    carried = Passthrough(merge([TAR.columns(file, STORAGE)], reserved_names()))
    found = rows(TAR.tables(file, STORAGE, carried), carried)
    expected = [("d/x", None), ("y", None), ("z", "no_audio"), ("d/x~2", None), ("s", None), ("s~2", None)]
    assert codes(found) == expected
    assert [row["audio"] for row in found] == [CLIPS[0], CLIPS[1], None, CLIPS[2], CLIPS[3], CLIPS[0]]
    first = {key: found[0][key] for key in ("ref_text", "n", "tags", "cls", "extra")}
    assert first == {"ref_text": "hello", "n": 1, "tags": '["a"]', "cls": "7", "extra": None}


def test_tar_goes_on_after_a_damaged_header(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    file = write_tar(path, SAMPLES)
    data = bytearray(path.read_bytes())
    data[data.index(b"1.flac\0") + 130] ^= 0xFF
    path.write_bytes(data)
    found = rows(TAR.tables(file, STORAGE, NONE))
    assert codes(found) == [("0", None), ("1", "no_audio"), ("2", None), ("3", None), ("", "broken_shard")]
    assert [row["audio"] for row in found] == [CLIPS[0], None, CLIPS[2], CLIPS[3], None]
    assert "header at byte" in found[-1]["error"]["message"]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tar_goes_on_when_the_very_first_long_name_is_damaged(tmp_path: Path, format: int) -> None:
    path = tmp_path / "c.tar"
    file = write_tar(path, [("x" * 120 + ".flac", CLIPS[0]), *SAMPLES[2:]], format)
    data = bytearray(path.read_bytes())
    data[1024 + 130] ^= 0xFF  # the header that the long name is for
    path.write_bytes(data)
    assert codes(rows(TAR.tables(file, STORAGE, NONE))) == [
        ("1", None),
        ("2", None),
        ("3", None),
        ("", "broken_shard"),
    ]


def test_tar_cut_inside_a_clip_and_between_members(tmp_path: Path) -> None:
    path = tmp_path / "d.tar"
    file = write_tar(path, SAMPLES)
    data = path.read_bytes()
    header = data.index(b"3.flac\0")
    path.write_bytes(data[: header + 700])
    found = rows(TAR.tables(file, STORAGE, NONE))
    kept = [("0", None), ("1", None), ("2", None)]
    assert codes(found) == [*kept, ("3", "truncated"), ("", "broken_shard")]
    assert found[2]["audio"] == CLIPS[2]
    assert found[3]["audio"] is None
    for end in (header, header + 100):
        path.write_bytes(data[:end])
        assert codes(rows(TAR.tables(file, STORAGE, NONE))) == [*kept, ("", "broken_shard")]


def test_tar_gzip_cut_short_and_flipped(tmp_path: Path) -> None:
    path = tmp_path / "e.tgz"
    file = write_tar(path, SAMPLES)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    found = rows(TAR.tables(file, STORAGE, NONE))
    assert codes(found)[:2] == [("0", None), ("1", None)]
    assert codes(found)[-2:] == [("2", "truncated"), ("", "broken_shard")]
    path.write_bytes(data[:-8] + bytes(4) + data[-4:])  # a wrong checksum
    assert codes(rows(TAR.tables(file, STORAGE, NONE)))[-1] == ("", "broken_shard")
    path.write_bytes(gzip.compress(b"") + data)  # several gzip members are one stream
    assert [code for _, code in codes(rows(TAR.tables(file, STORAGE, NONE)))] == [None] * 4


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 200])
def test_tar_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.tar"
    path.write_bytes(content)
    assert codes(rows(TAR.tables(shard(path, "tar"), STORAGE, NONE))) == [("", "broken_shard")]
    assert TAR.samples(shard(path, "tar"), STORAGE) == []


def test_tar_absent(tmp_path: Path) -> None:
    found = rows(TAR.tables(shard(tmp_path / "g.tar", "tar"), STORAGE, NONE))
    assert codes(found) == [("", "undelivered")]


# Manifest

LINES = [
    b'\xef\xbb\xbf{"audio_filepath": "a/1.wav", "duration": 2.5, "text": "one"}',
    b"",
    b'{"audio": "/abs/2.wav", "offset": 1, "duration": 0.5}',
    b"{broken",
    b'["a list"]',
    b'{"text": "no audio"}',
    b'{"path": "s3://b/3.wav", "offset": 0.25}',
    b'{"wav": "../4.wav", "offset": -1}',
    b'{"wav": "\\ud800.wav"}',
    b'{"file_name": "./5.wav", "audio": {"path": "x"}}',
]


def test_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m" / "m.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"\n".join(LINES))
    file = shard(path, "manifest")
    samples = MANIFEST.samples(file, STORAGE)
    assert samples[0] == {"audio_filepath": "a/1.wav", "duration": 2.5, "text": "one"}
    assert len(samples) == 4
    carried = Passthrough(pa.schema([("ref_text", pa.string()), ("duration", pa.float64())]))
    found = rows(MANIFEST.tables(file, STORAGE, carried), carried)
    bad = "bad_record"
    assert codes(found) == [
        ("1", None),
        ("3", None),
        ("4", bad),
        ("5", bad),
        ("6", bad),
        ("7", None),
        ("8", bad),
        ("9", bad),
        ("10", None),
    ]
    good = [(row["source"], row["start_s"], row["length_s"]) for row in found if row["error"] is None]
    assert good == [
        (f"{tmp_path}/m/a/1.wav", None, None),
        ("/abs/2.wav", 1.0, 0.5),
        ("s3://b/3.wav", 0.25, None),
        (f"{tmp_path}/m/5.wav", None, None),
    ]
    assert (found[0]["ref_text"], found[0]["duration"]) == ("one", 2.5)
    assert found[4]["ref_text"] == "no audio"
    assert "`offset`" in found[6]["error"]["message"]

    assert MANIFEST.slices(file, STORAGE) == []  # too small to be worth the look
    monkeypatch.setattr(manifest, "_RECORDS_IN_A_SLICE", 4)
    monkeypatch.setattr(type(MANIFEST), "clip_bytes", 1)
    slices = MANIFEST.slices(file, STORAGE)
    assert [part[1:] for part in slices] == [(1, 4), (5, 4), (9, 2)]
    parts = [row for part in slices for row in rows(MANIFEST.tables(file, STORAGE, carried, part), carried)]
    assert parts == found


def test_manifest_absent(tmp_path: Path) -> None:
    file = shard(tmp_path / "none.jsonl", "manifest")
    assert codes(rows(MANIFEST.tables(file, STORAGE, NONE))) == [("", "undelivered")]
    large = Shard(file.uri, file.name, file.format, 1 << 20, "v1")
    assert MANIFEST.slices(large, STORAGE) == [(0, 1, None)]
    assert MANIFEST.samples(file, STORAGE) == []


# All formats


class _FailingFile(io.BytesIO):
    """Storage that delivers only the bytes before `limit`, as a lost connection does."""

    limit = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > self.limit:
            raise OSError(5, "connection lost")
        return super().read(size)


class _FailingStorage(Storage):
    def open(self, uri: str, **arguments: Any) -> StorageFile:
        file = _FailingFile(Path(uri).read_bytes())
        file.limit = len(file.getvalue()) // 2
        return StorageFile(file, lambda problem: StorageError(self.explain(uri, problem)))


def test_tar_storage_failure_keeps_what_came_before(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "h.tar", [(f"{i}.flac", flac(i, 16_000)) for i in range(8)])
    found = codes(rows(TAR.tables(file, _FailingStorage(StorageOptions()), NONE)))
    assert found[:2] == [("0", None), ("1", None)]
    assert found[-2][1] == found[-1][1] == "undelivered"
    assert found[-1][0] == ""


@pytest.mark.parametrize("kind", ["tar", "tgz", "parquet", "jsonl"])
def test_flipped_bytes_never_raise(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    if kind == "parquet":
        file = write_parquet(path, {"audio": CLIPS, "text": ["a", "b", "c", "d"]}, row_group_size=1)
    elif kind == "jsonl":
        path.write_bytes(b"\n".join(LINES))
        file = shard(path, "manifest")
    else:
        file = write_tar(path, SAMPLES)
    whole = path.read_bytes()
    read = {"parquet": PARQUET, "jsonl": MANIFEST}.get(kind, TAR).tables
    carried = Passthrough(pa.schema([("ref_text", pa.string())]))
    random = np.random.default_rng(0)
    for _ in range(40):
        data = bytearray(whole)
        for at in random.integers(0, len(whole), 5):
            data[at] = random.integers(0, 256)
        path.write_bytes(data)
        identities = [row["clip_id"] for row in rows(read(file, STORAGE, carried), carried)]
        assert identities
        assert len(set(identities)) == len(identities)
