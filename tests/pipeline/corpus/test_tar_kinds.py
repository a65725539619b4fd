"""Tars as archivers of all kinds write them, and what a large member costs."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.corpus.readers import recognise
from tests.conftest import ROOT
from tests.pipeline.corpus.test_damaged_shards import tar_member
from tests.pipeline.corpus.test_readers import CLIPS, NONE, STORAGE, TAR, codes, rows, shard
from tests.pipeline.corpus.test_tar_samples import TEXT, table, texts

_TAR = shutil.which("tar")
_IS_GNU = _TAR is not None and b"GNU" in subprocess.run([_TAR, "--version"], capture_output=True).stdout
gnu_tar = pytest.mark.skipif(not _IS_GNU, reason="GNU tar is not installed")


@pytest.mark.parametrize(
    "ending", ["tar", "tar.gz", "tgz", "tar.bz2", "tbz2", "tbz", "tar.xz", "txz", "TAR.XZ"]
)
def test_endings(ending: str) -> None:
    reader = recognise(f"s3://bucket/x.{ending}")
    assert reader is not None
    assert reader.name == "tar"


def wav_with_holes(path: Path) -> bytes:
    """A WAV of mostly silence, which its file does not store."""
    data = b"RIFF" + bytes(96) + os.urandom(5000) + bytes(200_000) + os.urandom(4000) + bytes(100_000)
    with path.open("wb") as file:
        for at in range(0, len(data), 4096):
            file.seek(at)
            file.write(data[at : at + 4096].rstrip(b"\0"))
        file.truncate(len(data))
    return data


def run_tar(folder: Path, archive: Path, *options: str) -> None:
    subprocess.run(["tar", "-C", folder, "--sort=name", "-cf", archive, *options, "d"], check=True)


@gnu_tar
@pytest.mark.parametrize("ending", ["tar", "tgz"])
@pytest.mark.parametrize("format", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_members(tmp_path: Path, format: str, ending: str) -> None:
    (tmp_path / "d").mkdir()
    data = wav_with_holes(tmp_path / "d/a.wav")
    (tmp_path / "d/a.txt").write_text("a")
    (tmp_path / "d/b.wav").write_bytes(CLIPS[0])
    options = ["--format=gnu"] if format == "gnu" else ["--format=posix", f"--sparse-version={format}"]
    path = tmp_path / f"x.{ending}"
    run_tar(tmp_path, path, "-S", "--hole-detection=raw", *options, *(["-z"] if ending == "tgz" else []))
    if ending == "tar":
        assert path.stat().st_size < len(data) / 4
    found = table(shard(path, "tar"))
    assert texts(found) == {"d/a": "a", "d/b": None}
    assert [row["audio"] for row in found] == [data, CLIPS[0]]


def test_a_sparse_member_that_promises_the_earth_is_an_error_row(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    record = "GNU.sparse.major=1\n", "GNU.sparse.minor=0\n", f"GNU.sparse.realsize={10**15}\n"
    records = b"".join(_pax_record(text) for text in record)
    body = b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)
    extended = tar_member("PaxHeaders/a.wav", records, tarfile.XHDTYPE)
    path.write_bytes(extended + tar_member("a.wav", body) + tar_member("b.wav", CLIPS[0]) + bytes(1024))
    found = table(shard(path, "tar"))
    assert codes(found) == [("a", "truncated"), ("b", None)]
    assert "sparse" in found[0]["error"]["message"]


def _pax_record(text: str) -> bytes:
    size = len(text) + 1
    while len(str(size)) + 1 + len(text) != size:
        size = len(str(size)) + 1 + len(text)
    return f"{size} {text}".encode()


@gnu_tar
@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "posix", "incremental"])
def test_formats_of_headers(tmp_path: Path, format: str) -> None:
    """V7 has no long names, and an incremental archive keeps times where others begin theirs."""
    name = "a" if format in ("v7", "incremental") else "d" * 90 + "/" + "n" * 90
    base = tmp_path / "d" / name
    base.parent.mkdir(parents=True)
    for suffix, data in ((".wav", CLIPS[0]), (".txt", b"long"), (".json", b'{"speaker": "s"}')):
        base.with_name(base.name + suffix).write_bytes(data)
    path = tmp_path / "x.tar"
    options = ["--format=gnu", f"--listed-incremental={tmp_path / 'list'}"]
    run_tar(tmp_path, path, *(options if format == "incremental" else [f"--format={format}"]))
    found = table(shard(path, "tar"))
    assert texts(found) == {f"d/{name}": "long"}
    assert (found[0]["speaker"], found[0]["audio"]) == ("s", CLIPS[0])


def archive(path: Path, members: Sequence[tuple[str, bytes]], **options: Any) -> None:
    with tarfile.open(path, "w", **options) as file:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("long", ["", "n" * 120 + "/"])
def test_names_in_latin1_stay_apart(tmp_path: Path, format: int, long: str) -> None:
    """As one replacement character they would be one name, with one text."""
    path = tmp_path / "x.tar"
    members = [
        (f"{long}caf{letter}.{end}", data)
        for letter, clip in (("é", CLIPS[0]), ("è", CLIPS[1]))
        for end, data in (("txt", letter.encode()), ("wav", clip))
    ]
    archive(path, members, format=format, encoding="latin-1")
    found = table(shard(path, "tar"))
    assert texts(found) == {f"{long}café": "é", f"{long}cafè": "è"}
    assert [row["audio"] for row in found] == CLIPS[:2]


def test_global_headers_and_what_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "é" * 600}) as file:
        for name, type in (
            ("d.wav", tarfile.DIRTYPE),
            ("p.wav", tarfile.FIFOTYPE),
            ("c.wav", tarfile.CHRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type = type
            file.addfile(member)
        for name, data in (
            (".//d.wav/./a.wav", CLIPS[0]),
            ("./d.wav/x/../a.txt", b"a"),
            ("d.wav/.a.wav", b"hidden"),
            ("../b.wav", CLIPS[1]),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    assert texts(table(shard(path, "tar"))) == {"d.wav/a": "a", "../b": None}


LINKS = [
    ("before.wav", "a.wav", tarfile.LNKTYPE),
    ("d/up.wav", "../a.wav", tarfile.SYMTYPE),
    ("chain.wav", "./d/up.wav", tarfile.LNKTYPE),
    ("chain.txt", "a.txt", tarfile.SYMTYPE),
    ("round.wav", "trip.wav", tarfile.SYMTYPE),
    ("trip.wav", "round.wav", tarfile.SYMTYPE),
    ("self.wav", "self.wav", tarfile.SYMTYPE),
    ("out.wav", "/elsewhere/a.wav", tarfile.SYMTYPE),
    ("long.wav", "n" * 120 + ".wav", tarfile.LNKTYPE),
    ("folder.wav", "d", tarfile.SYMTYPE),
    ("latest", "d", tarfile.SYMTYPE),
]


def linked(links_first: bool, format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as file:
        for part in (0, 1) if links_first else (1, 0):
            for name, target, type in LINKS if part == 0 else ():
                member = tarfile.TarInfo(name)
                member.type, member.linkname = type, target
                file.addfile(member)
            for name, data in (("a.wav", CLIPS[0]), ("a.txt", b"a"), ("n" * 120 + ".wav", CLIPS[1]))[
                : 3 * part
            ]:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("links_first", [True, False])
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_links(tmp_path: Path, links_first: bool, format: int) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(linked(links_first, format))
    found = {row["clip_id"].split("#")[1]: row for row in table(shard(path, "tar"))}
    lost = {"round", "trip", "self", "out", "folder"}
    audio = dict.fromkeys(("a", "before", "d/up", "chain"), CLIPS[0]) | dict.fromkeys(
        ["long", "n" * 120], CLIPS[1]
    )
    assert {key: row["audio"] for key, row in found.items()} == audio | dict.fromkeys(lost)
    assert {key for key, row in found.items() if row["error"]} == lost
    assert {found[key]["error"]["code"] for key in lost} == {"no_audio"}
    assert "a link to /elsewhere/a.wav" in found["out"]["error"]["message"]
    assert [found[key]["ref_text"] for key in ("a", "chain", "before")] == ["a", "a", None]


def test_links_in_a_stream_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(linked(False, tarfile.GNU_FORMAT)))
    found = table(shard(path, "tar"))
    kept = [row["clip_id"].split("#")[1] for row in found if row["error"] is None]
    assert kept == ["a", "n" * 120]
    assert {row["error"]["code"] for row in found if row["error"]} == {"no_audio"}
    assert "because the shard is compressed" in found[2]["error"]["message"]


def test_empty_joined_and_with_garbage_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    archive(path, [])
    assert table(shard(path, "tar")) == []
    assert TAR.columns(shard(path, "tar"), STORAGE) == NONE.schema
    archive(path, [("0.wav", CLIPS[0]), ("0.txt", b"0")])
    one = path.read_bytes()
    archive(path, [("1.wav", CLIPS[1]), ("1.txt", b"1")])
    path.write_bytes(one + path.read_bytes())
    assert texts(table(shard(path, "tar"))) == {"0": "0", "1": "1"}
    for garbage in (b"short", os.urandom(3000)):
        path.write_bytes(one + garbage)
        found = table(shard(path, "tar"))
        assert codes(found) == [("0", None), ("", "broken_shard")]
        assert (found[0]["audio"], found[0]["ref_text"]) == (CLIPS[0], "0")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_compressed_tar_cut_short(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.tar.{kind}"
    noise = os.urandom(1 << 20)
    with tarfile.open(path, f"w:{kind}") as file:
        for name, data in (("0.wav", CLIPS[0]), ("0.txt", b"0"), ("1.wav", noise), ("2.wav", noise)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    found = rows(TAR.tables(shard(path, "tar"), STORAGE, TEXT), TEXT)
    assert codes(found)[0] == ("0", None)
    assert codes(found)[-2:] == [("2" if len(found) == 4 else "1", "truncated"), ("", "broken_shard")]
    assert found[0]["audio"] == CLIPS[0]


_CHILD = """
import resource, sys
from pathlib import Path
import pyarrow as pa
from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.readers import READERS
from pipeline.storage import Storage, StorageOptions
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before = peak()
storage = Storage(StorageOptions())
tables = READERS["tar"].tables(Shard(sys.argv[1], "x", "tar", 1, "1"), storage, Passthrough(pa.schema([])))
for table in tables:
    assert table["error"].null_count == table.num_rows, table["error"]
    sizes = table["audio"].nbytes
    del table
    print(sizes, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["tar", "tgz"])
def test_a_large_member_is_in_memory_once(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    size = 128 << 20
    with path.open("wb") as raw:
        file = gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1) if ending == "tgz" else raw
        for name in ("a.wav", "b.wav"):
            header = tarfile.TarInfo(name)
            header.size = size
            file.write(header.tobuf())
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))
        file.write(bytes(1024))
        file.close()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    figures = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [held >= size for held, _ in figures] == [True, True]
    assert figures[-1][1] < 1.8 * size
