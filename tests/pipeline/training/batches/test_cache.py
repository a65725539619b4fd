"""Features on a node's disk."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import numpy as np
import pytest

from pipeline.errors import Code
from pipeline.storage import Storage, StorageError, StorageOptions
from pipeline.training.batches.augment import log_mel
from pipeline.training.batches.cache import FeatureCache
from tests.conftest import ROOT
from tests.pipeline.training.tables import STORAGE, broken, clip, energies_of, write


def cache(tmp_path: Path, limit_bytes: int | None = None) -> FeatureCache:
    return FeatureCache(STORAGE, tmp_path / "cache", limit_bytes)


def made(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def test_a_clip_is_what_the_table_holds(tmp_path: Path) -> None:
    rows = [clip(f"x#{n}", 10 + n) for n in range(600)]
    rows[1] = broken("x#1", Code.EMPTY, "nothing")
    rows[2] = clip("x#2", None)
    file = cache(tmp_path).file(write(tmp_path / "t" / "a.parquet", rows))
    for row in (0, 3, 255, 256, 511, 599):
        found = file.clip(row)
        assert (found.features.dtype, found.features.shape) == (np.float16, (10 + row, 160))
        assert found.features.tobytes() == rows[row]["features"]
        np.testing.assert_array_equal(found.mean, rows[row]["log_mel_mean"])
        np.testing.assert_array_equal(found.std, rows[row]["log_mel_std"])
        assert not found.features.flags.owndata
        assert not found.features.flags.writeable
    for row in (1, 2, 600, -1):
        with pytest.raises(IndexError):
            file.clip(row)


def test_log_mel_energies_come_back(tmp_path: Path) -> None:
    energies = energies_of(5, 80)
    file = cache(tmp_path).file(write(tmp_path / "a.parquet", [clip("x#1", 80, energies=energies)]))
    found = log_mel(file.clip(0))
    assert found.dtype == np.float32
    # float16 has 11 bits: of a feature of 4 within 0.001, of an energy that times the deviation.
    np.testing.assert_allclose(found, energies, atol=0.01)


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "zeros at the end"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    uri = write(tmp_path / "a.parquet", [clip("x#1", 20)])
    expected = cache(tmp_path).file(uri).clip(0).features.copy()
    (path,) = made(tmp_path)
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[:-100], "empty": b"", "other": b"x" * 9999}.get(damage, data[:-64] + bytes(64))
    )
    np.testing.assert_array_equal(cache(tmp_path).file(uri).clip(0).features, expected)
    assert [found.read_bytes() for found in made(tmp_path)] == [data]


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", [clip("x#1", 20)])
    cache(tmp_path).file(uri)
    (path,) = made(tmp_path)
    path.unlink()
    path.with_suffix(".unfinished").write_bytes(b"half of it" * 10_000)
    assert cache(tmp_path).file(uri).clip(0).features.shape == (20, 160)
    assert made(tmp_path) == [path]


def test_a_table_made_anew_is_another_file(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", [clip("x#1", 20)])
    cache(tmp_path).file(uri)
    write(tmp_path / "a.parquet", [clip("x#1", 30)])
    assert cache(tmp_path).file(uri).clip(0).features.shape == (30, 160)


def test_processes_share_what_one_of_them_makes(tmp_path: Path) -> None:
    uris = [
        write(tmp_path / f"{n}.parquet", [clip(f"x#{n}.{m}", 200 + m) for m in range(40)]) for n in range(4)
    ]
    code = """
import sys
from pathlib import Path
from pipeline.storage import Storage, StorageOptions
from pipeline.training.batches.cache import FeatureCache
directory, *uris = sys.argv[1:]
written, write = [], FeatureCache._write
FeatureCache._write = lambda *arguments: (written.append(arguments[1]), write(*arguments))
cache = FeatureCache(Storage(StorageOptions()), Path(directory))
print("ready", flush=True)
sys.stdin.readline()
shapes = [cache.file(uri).clip(39).features.shape for uri in uris]
print(shapes == [(239, 160)] * len(uris), len(written))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "cache"), *uris]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    told = []
    for process in processes:  # both go on before either is waited for
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        told.append(process.communicate()[0].split())
    assert [right for right, _ in told] == ["True", "True"]
    assert sum(int(count) for _, count in told) == 4
    assert [path.suffix for path in made(tmp_path)] == [".arrow"] * 4


def test_threads_share_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [write(tmp_path / f"{n}.parquet", [clip(f"x#{n}", 300)]) for n in range(3)]
    written: list[str] = []
    write_file = FeatureCache._write

    def counted(self: FeatureCache, uri: str, unfinished: object) -> None:
        written.append(uri)
        write_file(self, uri, unfinished)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureCache, "_write", counted)
    shared = cache(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda uri: shared.file(uri).clip(0).features.shape, uris * 8))
    assert found == [(300, 160)] * 24
    assert sorted(written) == uris


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    uris = [write(tmp_path / f"{n}.parquet", [clip(f"x#{n}", 100)]) for n in range(4)]
    size = os.path.getsize(uris[0])
    limited = cache(tmp_path, 3 * size)
    names = {}
    for second, uri in enumerate(uris[:3]):
        names[uri] = limited.file(uri).path
        os.utime(names[uri], (second, second))
    first = limited.file(uris[0])  # used again
    names[uris[3]] = limited.file(uris[3]).path
    assert made(tmp_path) == sorted([names[uris[0]], names[uris[2]], names[uris[3]]])
    assert first.clip(0).features.shape == (100, 160)
    gone = limited.file(uris[1])  # made again
    assert gone.path == names[uris[1]]
    assert gone.path.exists()


def test_what_is_mapped_stays_readable(tmp_path: Path) -> None:
    rows = [clip("x#1", 100)]
    file = cache(tmp_path).file(write(tmp_path / "a.parquet", rows))
    found = file.clip(0).features
    file.path.unlink()
    assert found.tobytes() == rows[0]["features"]


def test_object_stores_are_read_once(tmp_path: Path, bucket: str) -> None:
    rows = [clip(f"x#{n}", 20) for n in range(9)]
    local = write(tmp_path / "a.parquet", rows)
    client = boto3.client("s3")
    client.upload_file(local, bucket.removeprefix("s3://"), "t/a.parquet")
    storage = Storage(StorageOptions().with_environment())
    uri = f"{bucket}/t/a.parquet"
    kept = FeatureCache(storage, tmp_path / "cache")
    assert kept.file(uri).clip(8).features.tobytes() == rows[8]["features"]
    client.delete_object(Bucket=bucket.removeprefix("s3://"), Key="t/a.parquet")
    assert kept.file(uri).clip(7).features.tobytes() == rows[7]["features"]


def test_what_is_no_feature_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.parquet").write_bytes(b"no Parquet")
    with pytest.raises(StorageError, match=r"b\.parquet"):
        cache(tmp_path).file(str(tmp_path / "b.parquet"))
    with pytest.raises(StorageError, match=r"does not exist"):
        cache(tmp_path).file(str(tmp_path / "c.parquet"))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"clip_id": ["a"], "frames": [1]}), tmp_path / "d.parquet")
    with pytest.raises(StorageError, match=r"no file of a feature table: it has no .*features"):
        cache(tmp_path).file(str(tmp_path / "d.parquet"))
    assert made(tmp_path) == []
