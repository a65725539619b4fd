"""A feature table from a folder of recordings and its `labels.tsv`: each clip once, as the corpus grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.audio.recording import decode
from pipeline.audio.resampling import resample
from pipeline.errors import Code, JobError
from pipeline.schema import output_schema
from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from pipeline.training.feature_table.prepare import prepare
from pipeline.training.feature_table.schema import FEATURES
from pipeline.training.feature_table.spec import FeatureTableSpec
from tests.jobs.tables import rows_at, rows_of
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

EXTRACTOR = SeamlessM4TFeatureExtractor()
STORAGE = Storage(StorageOptions())
HEADER = "path\tspeaker\ttext\tspeed\n"


def speech(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(round(seconds * 1000))
    return (0.1 * rng.standard_normal(round(16_000 * seconds))).astype(np.float32)


def write(folder: Path, name: str, samples: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / name, samples, 16_000, subtype="FLOAT")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two clips that are sound, a silent one, and one of each kind of failure."""
    folder = tmp_path / "corpus"
    write(folder / "wav", "one.wav", speech(0.51))  # the last frame is filled in part
    write(folder / "wav", "two.wav", speech(1.3))
    write(folder / "wav", "silent.wav", np.zeros(8000, np.float32))
    write(folder / "wav", "long.wav", speech(2.1))
    (folder / "wav" / "junk.wav").write_bytes(b"no audio" * 20)
    lines = [
        f"wav/{name}.wav\ts{n}\tword {n}\t{n}"
        for n, name in enumerate(("one", "two", "silent", "long", "junk"))
    ]
    (folder / "labels.tsv").write_text(
        HEADER + "\n".join([*lines, "wav/gone.wav\ts5\tword 5\t5", "ragged"]) + "\n"
    )
    return folder


def spec_of(corpus: Path, **other: Any) -> FeatureTableSpec:
    places = {"input": [str(corpus)], "output": str(corpus.with_name("features"))}
    return FeatureTableSpec(**{**places, "max_duration_s": 2.0, **other})


def features_of(row: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(row["features"], np.float16).reshape(row["frames"], 160)


def log_mel(row: dict[str, Any]) -> np.ndarray:
    """What the features were before they were normalised: (frames, 160)."""
    mean, std = (np.tile(np.array(row[name], np.float32), 2) for name in ("log_mel_mean", "log_mel_std"))
    return features_of(row).astype(np.float32) * std + mean


def raw_log_mel(samples: np.ndarray) -> np.ndarray:
    frames = EXTRACTOR.num_frames(len(samples))
    found = EXTRACTOR(samples, sampling_rate=16_000, do_normalize_per_mel_bins=False, return_tensors="np")
    return found["input_features"][0, :frames]


@pytest.mark.usefixtures("local_ray")
def test_a_corpus_that_grows(corpus: Path) -> None:
    said: list[str] = []
    summary = prepare(spec_of(corpus), EXTRACTOR, say=said.append)
    assert (summary.tally.clips, summary.tally.annotated) == (7, 3)
    rows = rows_of(corpus.with_name("features"))
    assert {clip_id: row["error"] and row["error"]["code"] for clip_id, row in rows.items()} == {
        "labels.tsv#1": None,
        "labels.tsv#2": None,
        "labels.tsv#3": None,
        "labels.tsv#4": Code.TOO_LONG,
        "labels.tsv#5": Code.UNDECODABLE,
        "labels.tsv#6": Code.NOT_FOUND,
        "labels.tsv#7": Code.BAD_RECORD,
    }
    assert [rows[clip_id]["ref_speed"] for clip_id in sorted(rows)] == [0, 1, 2, 3, 4, 5, None]
    for clip_id, name in (("labels.tsv#1", "one.wav"), ("labels.tsv#2", "two.wav")):
        row, samples = rows[clip_id], decode((corpus / "wav" / name).read_bytes()).samples
        np.testing.assert_array_equal(features_of(row), EXTRACTOR.extract(samples).astype(np.float16))
        np.testing.assert_allclose(log_mel(row), raw_log_mel(samples), atol=2e-2)
        assert (row["speed"], row["encoder_s"]) == (1.0, None)
    assert rows["labels.tsv#1"]["frames"] == EXTRACTOR.num_frames(8160) == 24
    silent = rows["labels.tsv#3"]
    assert (silent["features"], silent["log_mel_mean"], silent["frames"]) == (None, None, 24)

    assert prepare(spec_of(corpus), EXTRACTOR, say=said.append).tally.clips == 0
    assert said[-1] == "nothing is new"

    write(corpus / "wav", "more.wav", speech(0.7))
    with (corpus / "labels.tsv").open("a") as labels:
        labels.write("wav/more.wav\ts0\tword\t1.5\n")
    summary = prepare(spec_of(corpus), EXTRACTOR, say=said.append)
    assert (summary.tally.clips, summary.tally.annotated) == (
        5,
        1,
    )  # errors of a shard that changed are tried again
    grown = rows_of(corpus.with_name("features"))
    assert len(grown) == 8
    assert {clip_id: grown[clip_id] for clip_id in rows} == rows
    assert grown["labels.tsv#8"]["ref_text"] == "word"

    check_files(corpus.with_name("features"))
    refused(corpus)


def check_files(folder: Path) -> None:
    """As a memory map wants them."""
    for file in folder.glob("*.parquet"):
        found = pq.ParquetFile(file)
        passthrough = pa.schema(
            [
                ("path", pa.string()),
                ("speaker", pa.string()),
                ("ref_text", pa.string()),
                ("ref_speed", pa.int64()),
            ]
        )
        assert found.schema_arrow.equals(output_schema(passthrough, FEATURES))
        for column in range(found.metadata.num_columns):
            chunk = found.metadata.row_group(0).column(column)
            assert chunk.compression == "UNCOMPRESSED"
            assert not any("DICTIONARY" in encoding for encoding in chunk.encodings)


def refused(corpus: Path) -> None:
    """Features of other settings never mix into a table."""
    for other in ({"speed": 0.9}, {"channel": "left"}):
        with pytest.raises(JobError, match=f"other settings:\n{next(iter(other))}: it was"):
            prepare(spec_of(corpus, **other), EXTRACTOR)
    with pytest.raises(JobError, match="num_mel_bins"):
        prepare(spec_of(corpus), SeamlessM4TFeatureExtractor(num_mel_bins=40, feature_size=40))
    with pytest.raises(JobError, match="24,000 Hz"):
        prepare(spec_of(corpus), SeamlessM4TFeatureExtractor(sampling_rate=24_000))


def test_a_table_of_annotations_is_refused(corpus: Path) -> None:
    ledger = Ledger(str(corpus.with_name("features")), STORAGE)
    with ledger.locked():
        ledger.declare({"models": {"transcribe": "sha256:0"}})
    with pytest.raises(JobError, match="holds transcribe; this job would write features"):
        prepare(spec_of(corpus), EXTRACTOR)


@pytest.mark.usefixtures("local_ray")
def test_another_speed_in_a_bucket(corpus: Path, bucket: str) -> None:
    storage = Storage(StorageOptions().with_environment())
    for file in (corpus / "labels.tsv", *(corpus / "wav").iterdir()):
        storage.write_bytes(f"{bucket}/corpus/{file.relative_to(corpus)}", file.read_bytes())
    prepare(spec_of(corpus, input=f"{bucket}/corpus", output=f"{bucket}/features-0.9", speed=0.9), EXTRACTOR)
    rows = rows_at(f"{bucket}/features-0.9")
    assert sorted(row["frames"] or 0 for row in rows.values()) == [0, 0, 0, 0, 27, 27, 71]
    row = rows["labels.tsv#2"]
    samples = resample(decode((corpus / "wav" / "two.wav").read_bytes()).samples, 14_400)
    np.testing.assert_array_equal(features_of(row), EXTRACTOR.extract(samples).astype(np.float16))
    assert (row["duration_s"], row["speed"]) == (1.3, pytest.approx(0.9))
