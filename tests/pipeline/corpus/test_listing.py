"""Discovery of shards: which files count, what they are called, what a person is told."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.corpus.clips import Shard
from pipeline.corpus.listing import changed_since, discover
from pipeline.corpus.readers import recognise
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageOptions
from pipeline.storage.files import file_info

STORAGE = Storage(StorageOptions())


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * len(name))


def found(tmp_path: Path, *inputs: str, output: str = "elsewhere", **known: dict[str, str]) -> list[Shard]:
    return discover(
        [str(tmp_path / given) for given in inputs], STORAGE, outputs=[str(tmp_path / output)], **known
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/x.parquet", "parquet"),
        ("x.tar", "tar"),
        ("x.TAR.GZ", "tar"),
        ("x.tgz", "tar"),
        ("x.jsonl", "manifest"),
        ("x.ndjson", "manifest"),
        ("x.Wav", "audio"),
        ("x.m4a", "audio"),
        ("x.json", "manifest"),
        ("x.JSONL.gz", "manifest"),
        ("x.json.zst", "manifest"),
        ("x.mov", "audio"),
        ("x.mkv", "audio"),
        ("x.m4b", "audio"),
        ("x.WV", "audio"),
        ("_x.wav", "audio"),
        ("x.txt", None),
        ("wav", None),
        ("README", None),
    ],
)
def test_layout_from_the_name(name: str, kind: str | None) -> None:
    # A file called just "wav" has no extension at all.
    reader = recognise(name)
    assert (reader and reader.name) == kind


def test_directory_in_order_with_relative_names(tmp_path: Path) -> None:
    put(tmp_path, "in/b/x.wav", "in/a.parquet", "in/notes.txt", "in/c.tar")
    shards = found(tmp_path, "in")
    assert [(shard.name, shard.format) for shard in shards] == [
        ("a.parquet", "parquet"),
        ("b/x.wav", "audio"),
        ("c.tar", "tar"),
    ]
    assert shards[1].uri == str(tmp_path / "in/b/x.wav")
    assert shards[1].size == len("in/b/x.wav")


def test_hidden_names_are_ignored_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path, "in/.x.wav", "in/._x.wav", "in/__MACOSX/x.wav", "in/_run/x.wav", "in/a/.cache/x.wav")
    put(tmp_path, "in/a/x.wav", "in/_underscore.wav", "in/_underscore_folder/in.wav", "in/__x/_y.tar")
    names = ["__x/_y.tar", "_underscore.wav", "_underscore_folder/in.wav", "a/x.wav"]
    assert [shard.name for shard in found(tmp_path, "in")] == names


def test_an_underscore_above_the_input_does_not_hide_it(tmp_path: Path) -> None:
    put(tmp_path, "_scratch/in/x.wav")
    assert [shard.name for shard in found(tmp_path, "_scratch/in")] == ["x.wav"]


def test_glob_of_files_and_of_directories(tmp_path: Path) -> None:
    put(tmp_path, "in/train-0.tar", "in/train-1.tar", "in/test-0.tar", "in/en/x.wav", "in/el/x.wav")
    assert [shard.name for shard in found(tmp_path, "in/train-*.tar")] == ["train-0.tar", "train-1.tar"]
    assert [shard.name for shard in found(tmp_path, "in/e?")] == ["el/x.wav", "en/x.wav"]


def test_a_name_with_wildcards_that_exists_is_that_file(tmp_path: Path) -> None:
    put(tmp_path, "in/take[1].wav", "in/take1.wav")
    assert [shard.name for shard in found(tmp_path, "in/take[1].wav")] == ["take[1].wav"]


def test_one_file(tmp_path: Path) -> None:
    put(tmp_path, "in/x.wav", "in/y.wav")
    assert [shard.name for shard in found(tmp_path, "in/x.wav")] == ["x.wav"]


def test_the_same_file_twice_is_one_shard(tmp_path: Path) -> None:
    put(tmp_path, "in/x.wav")
    assert len(found(tmp_path, "in", "in/x.wav", "in/*.wav")) == 1


def test_clashing_names_grow_until_they_differ(tmp_path: Path) -> None:
    put(tmp_path, "a/train/x.wav", "b/train/x.wav", "b/train/y.wav")
    names = [shard.name for shard in found(tmp_path, "a/train", "b/train")]
    assert names == ["a/train/x.wav", "b/train/x.wav", "y.wav"]


def test_known_names_stay_and_newcomers_avoid_them(tmp_path: Path) -> None:
    put(tmp_path, "a/x.wav", "b/x.wav")
    known = {str(tmp_path / "a/x.wav"): "x.wav"}
    assert [shard.name for shard in found(tmp_path, "a", "b", known_names=known)] == ["x.wav", "b/x.wav"]
    # Also when the earlier file is not among this run's inputs: its ids are in the output.
    assert [shard.name for shard in found(tmp_path, "b", known_names=known)] == ["b/x.wav"]


def test_output_inside_the_input_is_no_input(tmp_path: Path) -> None:
    put(tmp_path, "in/a.parquet", "in/out/part-0.parquet", "in/output.parquet")
    assert [shard.name for shard in found(tmp_path, "in", output="in/out")] == ["a.parquet", "output.parquet"]


def test_version_follows_size_and_time(tmp_path: Path) -> None:
    put(tmp_path, "in/x.wav")
    file = tmp_path / "in/x.wav"
    os.utime(file, (1, 1))
    first = found(tmp_path, "in")[0].version
    assert found(tmp_path, "in")[0].version == first
    os.utime(file, (2, 2))
    second = found(tmp_path, "in")[0].version
    file.write_bytes(b"longer than it was before")
    os.utime(file, (2, 2))
    assert len({first, second, found(tmp_path, "in")[0].version}) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("absent", "does not exist"),
        ("empty", "no audio shard there"),
        ("texts", "no audio shard there"),
        ("texts/notes.txt", "not a kind of file that holds audio"),
        ("texts/*.wav", "no audio shard there"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, given: str, said: str) -> None:
    put(tmp_path, "texts/notes.txt", "good/x.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match=said) as caught:
        found(tmp_path, "good", given)
    assert f"--input {tmp_path / given}" in str(caught.value)


def test_unknown_protocol_is_named() -> None:
    with pytest.raises(JobError, match="nosuch://"):
        discover(["nosuch://bucket/x"], STORAGE, outputs=["out"])


def test_shards_older_than_a_time_are_told_apart(tmp_path: Path) -> None:
    put(tmp_path, "in/old.tar", "in/new.tar")
    for name, time in (("old", 1_000_000), ("new", 2_000_000)):
        os.utime(tmp_path / f"in/{name}.tar", (time, time))
    shards = found(tmp_path, "in")
    assert [(shard.name, shard.modified) for shard in shards] == [("new.tar", 2e6), ("old.tar", 1e6)]
    untold = Shard("x", "x", "tar", 0, "1")

    def since(seconds: float) -> list[str]:
        return [each.name for each in changed_since([*shards, untold], datetime.fromtimestamp(seconds, UTC))]

    assert since(1e6) == ["new.tar", "old.tar", "x"]
    assert since(1e6 + 1) == ["new.tar", "x"]
    assert since(3e6) == ["x"]
    assert changed_since(shards, None) == shards


@pytest.mark.parametrize(
    ("listed", "seconds"),
    [
        ({"LastModified": datetime(1970, 1, 2, tzinfo=UTC)}, 86400.0),
        ({"LastModified": datetime(1970, 1, 2, 2, tzinfo=timezone(timedelta(hours=2)))}, 86400.0),
        ({"last_modified": datetime(1970, 1, 2)}, 86400.0),
        ({"last_modified": "1970-01-02T00:00:00Z"}, 86400.0),
        ({"LastModified": "a while ago"}, None),
        ({}, None),
    ],
)
def test_times_as_storage_tells_them(listed: dict[str, object], seconds: float | None) -> None:
    assert file_info("s3://b/x.tar", {"size": 1, **listed}).modified == seconds
