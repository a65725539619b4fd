"""Damage of one kind each, and what of a shard it must not cost."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.columns import Passthrough
from pipeline.corpus.listing import drop_listed_files
from pipeline.corpus.readers import manifest
from pipeline.corpus.readers.manifest import records
from tests.pipeline.corpus.test_readers import (
    CLIPS,
    HF_AUDIO,
    MANIFEST,
    NONE,
    PARQUET,
    SAMPLES,
    STORAGE,
    TAR,
    _FailingStorage,
    codes,
    flac,
    rows,
    shard,
    write_parquet,
    write_tar,
)

TEXT = Passthrough(pa.schema([("ref_text", pa.string())]))


# Parquet


def broken_text(values: list[bytes]) -> pa.Array:
    """A string column as a damaged file gives it: nobody looked whether it is UTF-8."""
    column = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), column.buffers())


@pytest.mark.parametrize("carried", [pa.string(), pa.int64(), None])
def test_parquet_text_that_is_not_utf8_stands_in_extra(tmp_path: Path, carried: pa.DataType | None) -> None:
    columns = {"audio": CLIPS[:3], "text": broken_text([b"one", b"\xfftwo", b"three"])}
    file = write_parquet(tmp_path / "a.parquet", columns)
    schema = Passthrough(pa.schema([("ref_text", carried)] if carried else []))
    found = rows(PARQUET.tables(file, STORAGE, schema), schema)
    assert codes(found) == [("0", None), ("1", None), ("2", None)]
    assert [row["audio"] for row in found] == CLIPS[:3]
    assert json.loads(found[1]["extra"]) == {"text": base64.b64encode(b"\xfftwo").decode()}
    if carried == pa.string():
        assert [row["ref_text"] for row in found] == ["one", None, "three"]
        assert (found[0]["extra"], found[2]["extra"]) == (None, None)
    else:
        assert json.loads(found[0]["extra"]) == {"text": "one"}


def test_parquet_text_inside_lists_and_structs_is_checked_too(tmp_path: Path) -> None:
    text = broken_text([b"a", b"\xff"])
    columns = {
        "audio": CLIPS[:2],
        "list": pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), text),
        "struct": pa.StructArray.from_arrays([text, pa.array([1, 2])], ["s", "n"]),
    }
    file = write_parquet(tmp_path / "b.parquet", columns)
    carried = Passthrough(PARQUET.columns(file, STORAGE))
    found = rows(PARQUET.tables(file, STORAGE, carried), carried)
    assert [(row["list"], row["struct"], row["error"]) for row in found] == [
        (["a"], {"s": "a", "n": 1}, None),
        (None, None, None),
    ]
    assert json.loads(found[1]["extra"]) == {"list": ["/w=="], "struct": {"s": "/w==", "n": 2}}


def test_parquet_dates_beyond_the_calendar_cost_nothing_else(tmp_path: Path) -> None:
    when = pa.array([0, 2**62, None], pa.timestamp("us"))
    file = write_parquet(tmp_path / "c.parquet", {"audio": CLIPS[:3], "when": when}, row_group_size=2)
    carried = Passthrough(pa.schema([("when", pa.string())]))
    found = rows(PARQUET.tables(file, STORAGE, carried), carried)
    assert codes(found) == [("0", None), ("1", None), ("2", None)]
    assert [row["when"] for row in found] == ['"1970-01-01 00:00:00"', None, None]
    assert "4611686018427387904" in json.loads(found[1]["extra"])["when"]


def test_parquet_path_that_is_no_text_is_one_bad_record(tmp_path: Path) -> None:
    paths = broken_text([b"a.wav", b"\xff.wav", b"\xff"])
    audio = pa.StructArray.from_arrays(
        [pa.array([None, None, CLIPS[0]], pa.binary()), paths], ["bytes", "path"]
    )
    found = rows(PARQUET.tables(write_parquet(tmp_path / "d.parquet", {"audio": audio}), STORAGE, NONE))
    assert codes(found) == [("0", None), ("1", "bad_record"), ("2", None)]
    assert (found[0]["source"], found[2]["audio"]) == (f"{tmp_path}/a.wav", CLIPS[0])


def varint(value: int) -> bytes:
    """A number as Thrift's compact protocol writes it: zigzag, seven bits a byte."""
    value = (value << 1) ^ (value >> 63)
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def with_group_rows(data: bytes, group: int, true: int, told: int) -> bytes:
    """The file with another `num_rows` in the footer of one row group (field 3, after `total_byte_size`)."""
    length = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -8 - length], data[-8 - length : -8]
    size = pq.read_metadata(io.BytesIO(data)).row_group(group).total_byte_size
    before = b"\x16" + varint(size) + b"\x16"
    at = footer.index(before + varint(true)) + len(before)
    footer = footer[:at] + varint(told) + footer[at + len(varint(true)) :]
    return body + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize("told", [0, 1, 4167, 1 << 41, -5])
def test_parquet_wrong_row_count_in_the_footer(tmp_path: Path, told: int) -> None:
    """Which of the numbers is wrong nobody knows, and with it which row a clip is."""
    clips = [flac(i, 400 + 10 * i) for i in range(70)]
    path = tmp_path / "e.parquet"
    audio = [{"bytes": clip, "path": "x"} for clip in clips]
    columns = {"audio": pa.array(audio, HF_AUDIO), "text": [f"t{i}" for i in range(70)]}
    file = write_parquet(path, columns, row_group_size=30)
    path.write_bytes(with_group_rows(path.read_bytes(), 1, 30, told))
    assert pq.read_metadata(path).row_group(1).num_rows == told
    for slice in (None, range(2, 3)):
        found = rows(PARQUET.tables(file, STORAGE, TEXT, slice), TEXT)
        assert codes(found) == [("", "broken_shard")]
        assert "contradicts itself" in found[0]["error"]["message"]
    assert PARQUET.columns(file, STORAGE) == NONE.schema
    assert PARQUET.slices(replace(file, size=1 << 40), STORAGE) == []


def test_parquet_promises_of_rows_beyond_the_file_are_not_counted_out(tmp_path: Path) -> None:
    path = tmp_path / "h.parquet"
    file = write_parquet(path, {"audio": CLIPS}, compression="none", use_dictionary=False)
    data = with_group_rows(path.read_bytes(), 0, 4, 1 << 41)
    length = int.from_bytes(data[-8:-4], "little")
    true, told = (b"\x16" + varint(rows) + b"\x19" for rows in (4, 1 << 41))  # of the file, before its groups
    footer = data[-8 - length : -8].replace(true, told, 1)
    path.write_bytes(data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert pq.read_metadata(path).num_rows == 1 << 41
    found = codes(rows(PARQUET.tables(file, STORAGE, NONE)))
    assert found[-1] == ("", "broken_shard")
    assert len(found) <= path.stat().st_size + 5


def test_parquet_without_the_arrow_schema_of_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    file = write_parquet(path, {"audio": pa.array(CLIPS[:2], pa.large_binary())})
    data = bytearray(path.read_bytes())
    at = data.index(b"ARROW:schema") + 40
    data[at : at + 8] = b"!" * 8
    path.write_bytes(data)
    with pytest.raises((OSError, pa.ArrowException)):
        pq.ParquetFile(path)
    assert PARQUET.columns(file, STORAGE) == NONE.schema
    assert codes(rows(PARQUET.tables(file, STORAGE, NONE))) == [("", "broken_shard")]


def test_parquet_storage_failure_is_no_damage(tmp_path: Path) -> None:
    clips = [flac(i, 16_000) for i in range(8)]
    file = write_parquet(tmp_path / "g.parquet", {"audio": clips}, row_group_size=1, use_dictionary=False)
    found = codes(rows(PARQUET.tables(file, _FailingStorage(STORAGE.options), NONE)))
    assert found == [("", "undelivered")]


# Tar


def with_links(path: Path, links: list[tuple[str, str, bytes]]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, data in SAMPLES[:4]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, target, kind in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)


def test_tar_links_lead_to_their_audio(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    links = [
        ("d/x.flac", "0.flac", tarfile.LNKTYPE),
        ("d/x.txt", "1.txt", tarfile.LNKTYPE),
        ("d/y.flac", "../1.flac", tarfile.SYMTYPE),
        ("d/z.flac", "./d/y.flac", tarfile.LNKTYPE),
        ("d/latest", ".", tarfile.SYMTYPE),
        ("u.flac", "elsewhere.flac", tarfile.LNKTYPE),
        ("u.txt", "elsewhere.txt", tarfile.LNKTYPE),
    ]
    with_links(path, links)
    found = rows(TAR.tables(shard(path, "tar"), STORAGE, TEXT), TEXT)
    assert codes(found) == [(k, None) for k in ("0", "1", "d/x", "d/y", "d/z")] + [("u", "no_audio")]
    assert [row["audio"] for row in found] == [CLIPS[0], CLIPS[1], CLIPS[0], CLIPS[1], CLIPS[1], None]
    assert found[2]["ref_text"] == "t1"
    assert "elsewhere.flac" in found[5]["error"]["message"]
    assert json.loads(found[5]["extra"]) == {"text": "(left out)"}


def test_tar_links_in_a_compressed_shard_are_error_rows(tmp_path: Path) -> None:
    path = tmp_path / "b.tgz"
    with_links(path, [("x.flac", "0.flac", tarfile.LNKTYPE), ("y.flac", "0.flac", tarfile.LNKTYPE)])
    found = rows(TAR.tables(shard(path, "tar"), STORAGE, NONE))
    assert codes(found) == [("0", None), ("1", None), ("x", "no_audio"), ("y", "no_audio")]


def tar_member(name: str, data: bytes, type: bytes = tarfile.REGTYPE, size: int | None = None) -> bytes:
    header = tarfile.TarInfo(name)
    header.type, header.size = type, len(data) if size is None else size
    return header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


@pytest.mark.parametrize("told", [5, 10**6, 10**18, -700])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("suffix", ["tar", "tgz"])
def test_tar_extended_size_is_not_believed(tmp_path: Path, told: int, own: bool, suffix: str) -> None:
    content = b""
    for name, data in SAMPLES:
        if name == "1.flac":
            record = f" size={told}\n"
            content += tar_member("PaxHeaders/1.flac", f"{len(record) + 2}{record}".encode(), tarfile.XHDTYPE)
        # A size that an extended header tells is 0 in the header itself, when Python writes it.
        content += tar_member(name, data, size=0 if name == "1.flac" and not own else None)
    path = tmp_path / f"c.{suffix}"
    content += bytes(1024)
    path.write_bytes(gzip.compress(content) if suffix == "tgz" else content)
    found = rows(TAR.tables(shard(path, "tar"), STORAGE, TEXT), TEXT)
    by_key = {row["clip_id"].split("#")[1]: row for row in found}
    assert by_key["0"]["audio"] == CLIPS[0]
    if own:
        assert [row["audio"] for row in found] == [*CLIPS, None]
        assert codes(found)[-1] == ("", "broken_shard")
    elif told == 10**18 or told < 0 or (told == 10**6 and suffix == "tar"):
        # The clip is lost, those behind it are not.
        assert [by_key[key]["audio"] for key in ("1", "2", "3")] == [b"", CLIPS[2], CLIPS[3]]
        assert by_key[""]["error"]["code"] == "broken_shard"


def test_tar_header_that_promises_more_than_the_shard_has_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "d.tar"
    member = tarfile.TarInfo("1.flac")
    member.size = 1 << 45
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    found = rows(TAR.tables(shard(path, "tar"), STORAGE, NONE))
    assert codes(found) == [("1", "truncated"), ("", "broken_shard")]
    member.size = -512
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + write_tar_bytes(tmp_path))
    found = rows(TAR.tables(shard(path, "tar"), STORAGE, NONE))
    assert codes(found) == [("0", None), ("1", None), ("2", None), ("3", None), ("", "broken_shard")]


def write_tar_bytes(folder: Path) -> bytes:
    write_tar(folder / "whole.tar", SAMPLES)
    return (folder / "whole.tar").read_bytes()


def test_tar_bad_metadata_stands_in_extra_and_costs_no_clip(tmp_path: Path) -> None:
    members = [
        ("0.json", b'{"broken'),
        ("0.flac", CLIPS[0]),
        ("1.flac", CLIPS[1]),
        ("1.txt", b"\xff\xfe"),
        ("1.json", b'{"n": 1}'),
        ("2.flac", CLIPS[2]),
        ("2.txt", b"x" * (8 << 20) + b"x"),
        ("2.json", b"[" * 100_000),
        ("3.flac", CLIPS[3]),
        ("3.json", b"\x80"),
        ("3.npy", b"\x80"),
    ]
    file = write_tar(tmp_path / "e.tar", members)
    assert TAR.samples(file, STORAGE) == [{}, {"n": 1}, {}, {}]
    carried = Passthrough(pa.schema([("ref_text", pa.string()), ("json", pa.string()), ("n", pa.int64())]))
    found = rows(TAR.tables(file, STORAGE, carried), carried)
    assert codes(found) == [("0", None), ("1", None), ("2", None), ("3", None)]
    assert [row["audio"] for row in found] == CLIPS
    assert [json.loads(row["extra"]) for row in found] == [
        {"json": '{"broken'},
        {"text": "//4="},
        {"text": "(left out)", "json": "[" * 100_000},
        {"json": "gA=="},
    ]
    assert [(row["ref_text"], row["json"], row["n"]) for row in found] == [
        (None, None, None),
        (None, None, 1),
        (None, None, None),
        (None, None, None),
    ]


@pytest.mark.parametrize("behind", [b"garbage behind the end", b"\x1f\x8b\x08 a header of gzip, damaged"])
def test_tar_garbage_behind_a_gzip_member_is_told(tmp_path: Path, behind: bytes) -> None:
    """It may be what is left of further clips: several gzip members are one stream."""
    path = tmp_path / "f.tgz"
    path.write_bytes(gzip.compress(write_tar_bytes(tmp_path)) + behind)
    found = rows(TAR.tables(shard(path, "tar"), STORAGE, NONE))
    assert codes(found) == [("0", None), ("1", None), ("2", None), ("3", None), ("", "broken_shard")]
    assert [row["audio"] for row in found] == [*CLIPS, None]
    path.write_bytes(gzip.compress(write_tar_bytes(tmp_path)) + bytes(512))  # padding is no damage
    assert codes(rows(TAR.tables(shard(path, "tar"), STORAGE, NONE)))[-1] == ("3", None)


def test_tar_member_without_a_name_does_not_take_the_shards_id(tmp_path: Path) -> None:
    path = tmp_path / "g.tar"
    path.write_bytes(tar_member("", CLIPS[0]) + tar_member("1.flac", CLIPS[1]) + b"?" * 512)
    found = rows(TAR.tables(shard(path, "tar"), STORAGE, NONE))
    assert codes(found) == [("~2", "no_audio"), ("1", None), ("", "broken_shard")]


# Manifest


def test_manifest_lines_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "RECORD_BYTES", 100)
    monkeypatch.setattr(records, "RECORD_BYTES", 100)
    monkeypatch.setattr(records, "_BUFFER_BYTES", 32)
    path = tmp_path / "a.jsonl"
    good = b'{"audio": "/x.wav", "pad": "%s"}'
    exact = good % (b"p" * (99 - len(good) + 2))
    assert len(exact) == 99
    lines = [exact, good % (b"p" * 1000), b"{}", good % b"", b"\0" * 500]
    path.write_bytes(b"\n".join(lines))
    file = shard(path, "manifest")
    found = rows(MANIFEST.tables(file, STORAGE, NONE))
    bad = "bad_record"
    assert codes(found) == [("1", None), ("2", bad), ("3", bad), ("4", None), ("5", bad)]
    assert f"{len(lines[1]) + 1} bytes" in found[1]["error"]["message"]
    monkeypatch.setattr(manifest, "_RECORDS_IN_A_SLICE", 1)
    slices = MANIFEST.slices(file, STORAGE)
    assert [start for start, _, _ in slices] == [
        0,
        *(sum(len(line) + 1 for line in lines[:i]) for i in range(1, 5)),
    ]
    parts = [row for part in slices for row in rows(MANIFEST.tables(file, STORAGE, NONE, part))]
    assert parts == found


def test_manifest_places_that_are_none_do_not_stop_the_job(tmp_path: Path) -> None:
    path, clip = tmp_path / "a.jsonl", tmp_path / "x.wav"
    clip.write_bytes(b"")
    places = ["s3://key:secret@bucket/x.wav", "http://[x", "nowhere://x.wav", "x.wav"]
    path.write_text("\n".join(json.dumps({"audio": place}) for place in places))
    shards = [shard(path, "manifest"), shard(clip, "audio")]
    assert drop_listed_files(shards, STORAGE) == shards[:1]
