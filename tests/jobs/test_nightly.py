"""The same command every night: only what is new, only what is asked for, errors once more when told to."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.job import run
from pipeline.spec import TranscribeSpec
from pipeline.storage import Storage, StorageOptions
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("local_ray")
CLIPS = [(ROOT / f"demo/audio/clip-{number}.flac").read_bytes() for number in range(3)]


def shard(path: Path, clips: int, languages: tuple[str, ...] = ("en", "de")) -> None:
    """A Parquet shard of so many clips, whose languages take turns."""
    columns = {
        "audio": [CLIPS[number % 3] for number in range(clips)],
        "language": [languages[number % len(languages)] for number in range(clips)],
    }
    pq.write_table(pa.table(columns), path)


def night(corpus: str | Path, output: str | Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """The summary of one run, and what it said."""
    said: list[str] = []
    spec = TranscribeSpec(
        input=[str(corpus)], output=str(output), model=str(ROOT / "demo/checkpoint"), **options
    )
    return run(spec, say=said.append).as_json(), said


def rows(output: str | Path) -> dict[str, Any]:
    """clip_id -> error code or transcript; an id that has two rows fails."""
    storage, found = Storage(StorageOptions().with_environment()), {}
    for uri in storage.list_files(str(output)):
        if uri.endswith(".parquet"):
            with storage.open(uri) as file:
                table = pq.read_table(file, columns=["clip_id", "error", "text"])
            for row in table.to_pylist():
                assert row["clip_id"] not in found
                found[row["clip_id"]] = row["error"]["code"] if row["error"] else row["text"]
    return found


def counts(summary: dict[str, Any]) -> tuple[int, int, int]:
    return summary["clips"], summary["shards_read"], summary["shards_skipped"]


def ids(name: str, *numbers: int) -> set[str]:
    return {f"{name}#{number}" for number in numbers}


def test_only_what_is_new(tmp_path: Path) -> None:
    corpus, output = tmp_path / "in", tmp_path / "out"
    corpus.mkdir()
    shard(corpus / "a.parquet", 2)
    shard(corpus / "b.parquet", 2)
    assert counts(night(corpus, output)[0]) == (4, 2, 0)
    first = {file: file.read_bytes() for file in output.glob("*.parquet")}
    shard(corpus / "a.parquet", 3)  # grown
    shard(corpus / "c.parquet", 1)  # new
    (corpus / "b.parquet").unlink()  # gone; its rows stay
    assert counts(night(corpus, output)[0]) == (2, 2, 0)
    assert rows(output).keys() == {
        *ids("a.parquet", 0, 1, 2),
        *ids("b.parquet", 0, 1),
        *ids("c.parquet", 0),
    }
    assert all(file.read_bytes() == content for file, content in first.items())
    # Nothing is new: the shards are not even opened, or they would be found broken.
    for file in corpus.iterdir():
        status = file.stat()
        file.write_bytes(bytes(status.st_size))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    summary, said = night(corpus, output)
    assert (counts(summary), said[-1]) == ((0, 0, 2), "nothing is new")


def test_a_few_clips_each_night(tmp_path: Path) -> None:
    corpus, output = tmp_path / "in", tmp_path / "out"
    corpus.mkdir()
    shard(corpus / "a.parquet", 4)
    shard(corpus / "b.parquet", 3)
    assert [night(corpus, output, limit=3)[0]["clips"] for _ in range(3)] == [3, 3, 1]
    assert rows(output).keys() == ids("a.parquet", 0, 1, 2, 3) | ids("b.parquet", 0, 1, 2)
    assert night(corpus, output)[0]["clips"] == 0
    assert night(corpus, output)[1][-1] == "nothing is new"


def test_only_clips_that_are_asked_for(tmp_path: Path) -> None:
    corpus, output = tmp_path / "in", tmp_path / "out"
    corpus.mkdir()
    shard(corpus / "a.parquet", 4)
    english, german = "language = 'en'", "language = 'de'"
    assert night(corpus, output, where=english)[0]["clips"] == 2
    assert rows(output).keys() == ids("a.parquet", 0, 2)
    assert night(corpus, output, where=english)[1][-1] == "nothing is new"
    # Limits and conditions go together, and a run under another condition leaves out what has rows.
    either = f"{english} OR {german}"
    assert night(corpus, output, where=either, limit=1)[0]["clips"] == 1
    assert night(corpus, output)[0]["clips"] == 1
    assert rows(output).keys() == ids("a.parquet", 0, 1, 2, 3)
    assert night(corpus, output, where=german)[1][-1] == "nothing is new"


def test_only_shards_that_changed_since(tmp_path: Path) -> None:
    corpus, output = tmp_path / "in", tmp_path / "out"
    corpus.mkdir()
    shard(corpus / "old.parquet", 1)
    shard(corpus / "new.parquet", 1)
    os.utime(corpus / "old.parquet", (time.time() - 7200,) * 2)
    since = datetime.fromtimestamp(time.time() - 3600, UTC)
    summary, said = night(corpus, output, since=since)
    assert (counts(summary), rows(output).keys()) == ((1, 1, 0), ids("new.parquet", 0))
    assert said[1] == f"1 shards skipped: older than {since:%Y-%m-%d %H:%M:%S} UTC"
    assert night(corpus, output)[0]["clips"] == 1


def retry(base: str) -> None:
    """A manifest names a file that is there, one that comes later, and one that never does."""
    storage = Storage(StorageOptions().with_environment())
    corpus, output = f"{base}/in", f"{base}/out"
    lines = [{"audio_filepath": f"{name}.flac", "language": "en"} for name in ("here", "late", "never")]
    storage.write_bytes(f"{corpus}/list.jsonl", "\n".join(map(json.dumps, lines)).encode())
    storage.write_bytes(f"{corpus}/here.flac", CLIPS[0])
    assert night(corpus, output)[0]["errors"] == {"not_found": 2}
    before = rows(output)
    storage.write_bytes(f"{corpus}/late.flac", CLIPS[0])
    assert night(corpus, output)[1][-1] == "nothing is new"
    assert night(corpus, output, retry_errors=True, where="language = 'de'")[1][-1] == "nothing is new"
    assert rows(output) == before

    summary, said = night(corpus, output, retry_errors=True)
    assert said[1] == "2 clips that failed before to be annotated again"
    assert (summary["clips"], summary["errors"]) == (2, {"not_found": 1})
    text = before["list.jsonl#1"]
    assert rows(output) == {"list.jsonl#1": text, "list.jsonl#2": text, "list.jsonl#3": "not_found"}
    assert night(corpus, output)[1][-1] == "nothing is new"


def test_errors_once_more(tmp_path: Path) -> None:
    retry(str(tmp_path))


def test_errors_once_more_in_a_bucket(moto_s3: Any) -> None:
    retry(moto_s3.uri("nightly"))
