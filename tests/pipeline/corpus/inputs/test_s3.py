"""Each layout is the same in an object store."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import datasets
import pytest

from pipeline.storage import Storage, StorageOptions
from tests.pipeline.corpus.inputs.reading import heard, rows, tone
from tests.pipeline.corpus.inputs.test_huggingface import made
from tests.pipeline.corpus.inputs.test_nemo import RECORDS, SECONDS, tar


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Every layout that is more than one file, side by side."""
    home = tmp_path / "in"
    for number, members in enumerate(SECONDS):
        tar(home / "nemo" / f"audio_{number}.tar", members)
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    (home / "nemo" / "tarred_audio_manifest.json").write_text(lines)
    tone(home / "kaldi" / "a.wav", 1.0)
    tables = {"wav.scp": "a a.wav\n", "segments": "u1 a 0.25 0.5\nu2 a 0.5 1\n", "text": "u1 one\nu2 two\n"}
    for name, text in tables.items():
        (home / "kaldi" / name).write_text(text)
    tone(home / "libri" / "1-2-0000.flac")
    (home / "libri" / "1-2.trans.txt").write_text("1-2-0000 HELLO\n")
    tone(home / "lj" / "wavs" / "LJ1.wav")
    (home / "lj" / "metadata.csv").write_text("LJ1|as printed|in words\n")
    tone(home / "loose" / "x.wav")
    (home / "loose" / "x.txt").write_text("beside")
    datasets.DatasetDict({"train": made(tmp_path / "source")}).save_to_disk(home / "saved")
    return home


def test_every_layout(corpus: Path, bucket: str) -> None:
    client = boto3.client("s3")
    for file in (file for file in corpus.rglob("*") if file.is_file()):
        client.upload_file(str(file), bucket.removeprefix("s3://"), f"in/{file.relative_to(corpus)}")
    storage = Storage(StorageOptions().with_environment())
    local, remote = rows(corpus), rows(f"{bucket}/in", storage=storage)
    assert list(local) == list(remote)
    assert len(local) == 6 + 2 + 1 + 1 + 1 + 3
    for clip_id, row in local.items():
        other = remote[clip_id]
        places = {
            name: f"{bucket}/in{str(row[name]).removeprefix(str(corpus))}" for name in ("shard", "source")
        }
        assert other["shard"] == places["shard"]
        assert other["source"] == (row["source"] and places["source"])
        assert {**other, "shard": "", "source": ""} == {**row, "shard": "", "source": ""}
        if row["error"] is None:
            assert heard(row) == heard(other, storage)
