"""Manifests as people write them: joined, pasted, compressed, in UTF-16, as an array."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.listing import discover, drop_listed_files
from pipeline.corpus.readers import READERS, manifest, recognise
from pipeline.corpus.readers.manifest import records
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError, StorageFile, StorageOptions

STORAGE = Storage(StorageOptions())
MANIFEST = READERS["manifest"]
NONE = Passthrough(pa.schema([]))
GOOD = b'{"audio": "/a.wav", "text": "caf\xc3\xa9, [1], {2}"}'
OTHER = b'{"audio": "/b.wav"}'
BOM = codecs.BOM_UTF8
COMPRESS: dict[str, Any] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def shard(path: Path) -> Shard:
    return Shard(str(path), path.name, "manifest", path.stat().st_size, "v1")


def read(path: Path, slice: Any = None) -> list[tuple[str, str | None]]:
    """Keys, and where the audio is or the error's code."""
    rows = [row for table in MANIFEST.tables(shard(path), STORAGE, NONE, slice) for row in table.to_pylist()]
    return [
        (row["clip_id"].split("#", 1)[1], row["error"]["code"] if row["error"] else row["source"])
        for row in rows
    ]


A, B, BAD = "/a.wav", "/b.wav", "bad_record"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (GOOD + b"\n" + BOM + OTHER + b"\n", [("1", A), ("2", B)]),
        (BOM + GOOD + b"\n  " + BOM + b" " + OTHER, [("1", A), ("2", B)]),
        (GOOD + b",\n" + OTHER + b" , \r\n", [("1", A), ("2", B)]),
        (GOOD + b",,\n" + OTHER + b"\n", [("1", BAD), ("2", B)]),
        (GOOD + OTHER + b"\n" + OTHER, [("1", BAD), ("2", B)]),
        ((GOOD + b"\n\n" + OTHER).decode().encode("utf-16"), [("1", A), ("3", B)]),
        (codecs.BOM_UTF16_BE + (GOOD + b"\n" + OTHER).decode().encode("utf-16-be"), [("1", A), ("2", B)]),
        (b"[\n" + GOOD + b",\n" + OTHER + b"\n]\n", [("1", A), ("2", B)]),
        (b" \n [" + GOOD + b"," + OTHER + b"]", [("1", A), ("2", B)]),
        (BOM + json.dumps([json.loads(GOOD), json.loads(OTHER)], indent=4).encode(), [("1", A), ("2", B)]),
        (b"[" + GOOD + b", 5, {broken, " + OTHER + b"]", [("1", A), ("2", BAD), ("3", BAD), ("4", B)]),
        (b"[" + GOOD + b", " + OTHER + b", {broken]", [("1", A), ("2", B), ("3", BAD)]),
        (b"[" + GOOD + b", " + OTHER[:-3], [("1", A), ("2", BAD), ("", "broken_shard")]),
        (b"[" + GOOD + b', {"audio": "/\xe9.wav"}, ' + OTHER + b"]", [("1", A), ("2", BAD), ("3", B)]),
        (b"[" + GOOD + b",]", [("1", A)]),
        (b"[]", []),
        (b'["a list"]\n' + GOOD, [("1", BAD), ("2", A)]),
        (b"[\n\n", [("1", BAD)]),
    ],
)
def test_good_records_are_clips_and_each_bad_one_an_error(
    tmp_path: Path, data: bytes, found: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_RECORDS_IN_A_SLICE", 1)
    monkeypatch.setattr(type(MANIFEST), "clip_bytes", 1)
    for ending, compress in {"": bytes, **COMPRESS}.items():
        path = tmp_path / f"m.jsonl{ending}"
        path.write_bytes(compress(data))
        assert recognise(path.name) is MANIFEST
        assert read(path) == found
        slices = MANIFEST.slices(shard(path), STORAGE)
        assert len(slices) >= len(found)
        assert [row for part in slices for row in read(path, part)] == found


def test_text_comes_through_whatever_it_is_packed_in(tmp_path: Path) -> None:
    columns = Passthrough(pa.schema([("ref_text", pa.string())]))
    for number, data in enumerate(
        (GOOD, GOOD.decode().encode("utf-16"), b"[" + GOOD + b"]", gzip.compress(GOOD))
    ):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(data)
        (table,) = MANIFEST.tables(shard(path), STORAGE, columns)
        assert table["ref_text"].to_pylist() == ["caf\u00e9, [1], {2}"]


def test_a_large_file_that_cannot_be_entered_in_the_middle_has_few_slices(tmp_path: Path) -> None:
    lines = b"".join(b'{"audio": "/%d.wav"}\n' % number for number in range(20_000))
    whole = [(str(number + 1), f"/{number}.wav") for number in range(20_000)]
    for name, data, count in (("m.jsonl", lines, 79), ("m.jsonl.gz", gzip.compress(lines, 1), 64)):
        path = tmp_path / name
        path.write_bytes(data)
        slices = MANIFEST.slices(shard(path), STORAGE)
        assert len(slices) == count
        assert [row for part in slices[:2] + slices[-1:] for row in read(path, part)] == [
            *whole[: 2 * slices[0].records],
            *whole[-slices[-1].records :],
        ]


@pytest.mark.slow
@pytest.mark.parametrize("ending", COMPRESS)
def test_of_a_damaged_file_all_is_read_that_can_be(tmp_path: Path, ending: str) -> None:
    lines = [b'{"audio": "/%d.wav", "pad": "%s"}\n' % (n, random_text(n)) for n in range(8_000)]
    path = tmp_path / f"m.jsonl{ending}"
    data = COMPRESS[ending](b"".join(lines))
    path.write_bytes(data[: len(data) * 3 // 4])
    found = read(path)
    assert found[-1] == ("", "broken_shard")
    good = 0 if ending == ".bz2" else 2_000
    assert len(found) > good
    assert found[:good] == [(str(n + 1), f"/{n}.wav") for n in range(good)]
    parts = [row for part in MANIFEST.slices(shard(path), STORAGE) for row in read(path, part)]
    assert sorted(parts) == sorted(found)
    path.write_bytes(data[:6] + bytes(100))
    assert read(path) == [("", "broken_shard")]


def random_text(seed: int) -> bytes:
    return b"%x" % (pow(3, seed + 200, 2**127 - 1))


def test_an_array_beyond_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_ARRAY_BYTES", 100)
    (tmp_path / "m.jsonl").write_bytes(b"[" + b",".join([OTHER] * 10) + b"]")
    assert read(tmp_path / "m.jsonl") == [("", "broken_shard")]


def names(tmp_path: Path, aside: Counter[str] | None = None) -> list[str]:
    shards = discover([str(tmp_path)], STORAGE, outputs=["elsewhere"], left_aside=aside)
    return [shard.name for shard in drop_listed_files(shards, STORAGE)]


def test_a_json_is_a_manifest_where_it_names_audio(tmp_path: Path) -> None:
    files = {
        "array.json": b"[" + GOOD + b"]",
        "lines.json": GOOD + b"\n" + OTHER,
        "lines.json.gz": gzip.compress(GOOD),
        "late.JSON": b"\n{broken\n" + GOOD,
        "pretty.json": json.dumps([json.loads(GOOD)] * 2000, indent=2).encode(),
        "wide.json": GOOD.decode().encode("utf-16"),
        "bad.jsonl": b"{broken",
    }
    others = {
        "x.json": b'{"speaker": "s1", "text": "hello"}',
        "config.json": b'{\n  "audio": {"rate": 16000}\n}',
        "list.json": b'[{"name": "a"}]',
        "empty.json": b"",
        "text.json": b"no json at all" * 10_000,
        "damaged.json.gz": b"\x1f\x8b damaged",
        "numbers.json": b"[1, 2, 3]",
    }
    for name, data in {**files, **others, "x.wav": b"audio"}.items():
        (tmp_path / name).write_bytes(data)
    aside: Counter[str] = Counter()
    assert names(tmp_path, aside) == sorted([*files, "x.wav"])
    assert aside == {".json": 6, ".gz": 1}
    with pytest.raises(JobError, match=r"config\.json: no audio shard there\..* There are 1 \*\.json"):
        discover([str(tmp_path / "config.json")], STORAGE, outputs=["elsewhere"])


def test_files_are_named_in_any_spelling(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    latin1 = b"m\xe0.wav"
    (folder / "x?#%20.wav").write_bytes(b"x")
    Path(str(folder), latin1.decode(errors="surrogateescape")).write_bytes(b"x")
    other = {"audio": "b.wav"}
    for spelled in (
        "a b/x?#%20.wav",
        f"{folder}/x?#%20.wav",
        (folder / "x?#%20.wav").as_uri(),
        f"file://localhost{tmp_path}/a%20b/x%3F%23%2520.wav",
        "./a b/../a b//x?#%20.wav",
        "link/x?#%20.wav",
        f"{tmp_path}/link/../a b/x?#%20.wav",
    ):
        lines = [{"audio": spelled}, {"audio": "a b/m\udce0.wav"}, other]
        (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
        assert names(tmp_path) == ["m.jsonl"], spelled
        sources = list(MANIFEST.sources(shard(tmp_path / "m.jsonl"), STORAGE, bool))
        assert [STORAGE.exists(source) for source in sources] == [True, True, False]


def test_a_manifest_that_cannot_be_read_stops_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"audio": "x.wav"}\n')
    (tmp_path / "x.wav").write_bytes(b"audio")
    opened: list[str] = []
    failures = [True, True]

    def open_(self: Storage, uri: str, **arguments: Any) -> StorageFile:
        opened.append(uri)
        if failures:
            failures.pop()
            raise StorageError(f"{uri}: TimeoutError: timed out")
        return real(self, uri, **arguments)

    real = Storage.open
    monkeypatch.setattr(Storage, "open", open_)
    for _ in range(2):
        with pytest.raises(JobError, match=r"m\.jsonl: TimeoutError.*which of the audio files"):
            names(tmp_path)
    assert names(tmp_path) == ["m.jsonl"]
    assert len(opened) == 3
