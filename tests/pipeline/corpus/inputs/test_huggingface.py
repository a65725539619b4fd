"""Hugging Face: folders of `save_to_disk`, `audiofolder`, decoded arrays, splits. `datasets` writes them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.aside import describe
from tests.pipeline.corpus.inputs.reading import RATE, codes, heard, json_lines, listed, rows, tone, values


@pytest.fixture
def three(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    """Three recordings of 0.1, 0.2 and 0.3 s as a data set, its audio cast to another rate."""
    return made(tmp_path_factory.mktemp("source"))


def made(folder: Path) -> datasets.Dataset:
    paths = [str(folder / f"{number}.wav") for number in (1, 2, 3)]
    for number, path in enumerate(paths, 1):
        tone(Path(path), number / 10)
    columns = {"text": ["one", "two", "three"], "sound": paths, "speaker": [7, 7, 8]}
    held = datasets.Dataset.from_dict(columns, split=datasets.Split("dev"))
    return held.cast_column("sound", datasets.Audio(sampling_rate=8000, decode=False))


def test_a_folder_of_save_to_disk(tmp_path: Path, three: datasets.Dataset) -> None:
    three.save_to_disk(tmp_path / "in", num_shards=2)
    three.select([2]).map(
        lambda row: {"text": "computed"}, cache_file_name=str(tmp_path / "in" / "cache-1.arrow")
    )
    found = rows(tmp_path / "in")
    assert {
        clip_id: (*values(row, "ref_text", "speaker", "split"), heard(row)) for clip_id, row in found.items()
    } == {
        "data-00000-of-00002.arrow#0": ("one", 7, "dev", (0.1, 0.5)),
        "data-00000-of-00002.arrow#1": ("two", 7, "dev", (0.2, 0.5)),
        "data-00001-of-00002.arrow#0": ("three", 8, "dev", (0.3, 0.5)),
    }
    aside: Counter[str] = Counter()
    listed(tmp_path / "in", aside=aside)
    assert describe(aside) == "1 *.arrow"


def test_splits_of_a_dictionary(tmp_path: Path, three: datasets.Dataset) -> None:
    held = datasets.DatasetDict({"train": three.select([0, 1]), "test": three.select([2])})
    held.save_to_disk(tmp_path / "in")
    found = rows(tmp_path / "in")
    assert {clip_id: values(row, "ref_text", "split") for clip_id, row in found.items()} == {
        "test/data-00000-of-00001.arrow#0": ("three", "test"),
        "train/data-00000-of-00001.arrow#0": ("one", "train"),
        "train/data-00000-of-00001.arrow#1": ("two", "train"),
    }
    aside: Counter[str] = Counter()
    listed(tmp_path / "in", aside=aside)
    assert not aside


def test_paths_without_bytes_are_files(tmp_path: Path) -> None:
    for name, level in {"a": 0.25, "b": 0.5}.items():
        tone(tmp_path / f"{name}.wav", 0.2, level)
    audio = pa.array(
        [{"bytes": None, "path": "a.wav"}, None], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pyarrow.feather.write_feather(
        pa.table({"audio": audio, "n": [1, 2]}), tmp_path / "t.feather", compression="zstd"
    )
    found = rows(tmp_path)
    assert codes(found) == {"b.wav#b": None, "t.feather#0": None, "t.feather#1": "no_audio"}
    assert heard(found["t.feather#0"]) == (0.2, 0.25)


def test_damage_of_an_arrow_file(tmp_path: Path, three: datasets.Dataset) -> None:
    three.save_to_disk(tmp_path / "in")
    (file,) = (tmp_path / "in").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:-20_000])
    assert codes(rows(tmp_path / "in")) == {"data-00000-of-00001.arrow#": "broken_shard"}
    file.write_bytes(b"no arrow")
    assert codes(rows(tmp_path / "in")) == {"data-00000-of-00001.arrow#": "broken_shard"}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_audiofolder(tmp_path: Path, kind: str) -> None:
    for number in (1, 2):
        tone(tmp_path / "train" / "sub" / f"{number}.wav", number / 10)
    records = [{"file_name": f"sub/{number}.wav", "transcription": f"words {number}"} for number in (1, 2, 3)]
    place = tmp_path / "train" / f"metadata.{kind}"
    match kind:
        case "csv":
            place.write_text(
                "file_name,transcription\n" + "".join(",".join(r.values()) + "\n" for r in records)
            )
        case "jsonl":
            place.write_text(json_lines(records))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(records), place)
    first = 0 if kind == "parquet" else 1
    found = rows(tmp_path)
    names = [f"train/metadata.{kind}#{first + number}" for number in range(3)]
    assert {clip_id: values(row, "file_name", "transcription") for clip_id, row in found.items()} == {
        name: (record["file_name"], record["transcription"])
        for name, record in zip(names, records, strict=True)
    }
    assert [heard(found[name]) for name in names[:2]] == [(0.1, 0.5), (0.2, 0.5)]
    assert found[names[2]]["source"] == f"{tmp_path}/train/sub/3.wav"


def test_a_signed_file_name_is_not_repeated(tmp_path: Path) -> None:
    place = "https://host.example/a.wav?X-Amz-Signature=secret"
    pq.write_table(pa.table({"file_name": [place, None]}), tmp_path / "metadata.parquet")
    found = rows(tmp_path)
    one = found["metadata.parquet#0"]
    assert one["source"] == place
    assert one["file_name"] == "https://host.example/a.wav?***"
    assert codes(found) == {"metadata.parquet#0": None, "metadata.parquet#1": "no_audio"}


def decoded(**more: Any) -> pa.Table:
    samples = [np.full(1600 * n, n / 4, np.float32) for n in (1, 2)]
    audio = [{"path": "x.wav", "array": array.tolist(), "sampling_rate": RATE} for array in samples]
    audio += [None, {"path": None, "array": None, "sampling_rate": RATE}]
    audio += [{"path": None, "array": [0.5], "sampling_rate": None}]
    type = pa.struct(
        [("path", pa.string()), ("array", pa.list_(pa.float32())), ("sampling_rate", pa.int64())]
    )
    return pa.table({"audio": pa.array(audio, type), "text": list("abcde"), **more})


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_decoded_arrays(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pq.write_table(decoded(), tmp_path / "t.parquet")
    else:
        pyarrow.feather.write_feather(decoded(), tmp_path / "t.feather")
    found = rows(tmp_path)
    assert list(codes(found).values()) == [None, None, "no_audio", "no_audio", "bad_record"]
    assert [row["ref_text"] for row in found.values()] == list("abcde")
    sound = list(found.values())
    assert [heard(row) for row in sound[:2]] == [(0.1, 0.25), (0.2, 0.5)]
    assert sound[4]["error"]["message"] == "the row's `array` is no audio: `sampling_rate` is null"


def test_decoded_arrays_of_two_channels(tmp_path: Path) -> None:
    audio = [{"array": [[0.5] * 800, [0.25] * 800], "sampling_rate": 8000}]
    pq.write_table(pa.table({"audio": audio}), tmp_path / "t.parquet")
    (row,) = rows(tmp_path).values()
    assert (heard(row)[0], heard(row)[1]) == (0.1, pytest.approx(0.375, abs=0.01))


def test_what_datasets_calls_audio_is_the_audio(tmp_path: Path) -> None:
    """Of two structs with bytes; the other is a picture."""
    for number in (1, 2):
        tone(tmp_path / f"{number}.wav", number / 10)
    picture, sound = ({"bytes": (tmp_path / f"{n}.wav").read_bytes(), "path": None} for n in (1, 2))
    table = pa.table({"image": [picture], "recording": [sound]})
    features = {"image": {"_type": "Image"}, "recording": {"_type": "Audio", "sampling_rate": 16000}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    (tmp_path / "in").mkdir()
    pq.write_table(table.replace_schema_metadata(about), tmp_path / "in" / "t.parquet")
    (row,) = rows(tmp_path / "in").values()
    assert heard(row) == (0.2, 0.5)


def test_the_split_of_a_file_of_push_to_hub(tmp_path: Path, three: datasets.Dataset) -> None:
    for name in ("train-00000-of-00001", "test.clean-00003-of-00007-abc123", "plain"):
        datasets.Dataset.to_parquet(three.select([0]), tmp_path / "data" / f"{name}.parquet")
    found = rows(tmp_path)
    assert {clip_id: row["split"] for clip_id, row in found.items()} == {
        "data/plain.parquet#0": None,
        "data/test.clean-00003-of-00007-abc123.parquet#0": "test.clean",
        "data/train-00000-of-00001.parquet#0": "train",
    }
