"""NeMo: manifests under a .json name, and tarred datasets with their manifests."""

from __future__ import annotations

import gzip
import io
import json
import logging
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.corpus.aside import describe
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.listing import shard_at
from pipeline.corpus.readers import READERS
from pipeline.errors import JobError
from tests.pipeline.corpus.inputs.reading import STORAGE, codes, heard, json_lines, listed, rows, tone, values


def tar(path: Path, seconds: dict[str, float]) -> None:
    """Members of these lengths, by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, length in seconds.items():
            file = path.parent / name
            tone(file, length)
            archive.add(file, name)
            file.unlink()


def record(name: str, shard: int, **more: Any) -> dict[str, Any]:
    return {"audio_filepath": name, "duration": 0.1, "text": f"words of {name}", "shard_id": shard, **more}


def test_a_json_of_lines_is_a_manifest(tmp_path: Path) -> None:
    tone(tmp_path / "wav" / "a.wav", 1.0)
    lines = [
        {"audio_filepath": "wav/a.wav", "duration": 1.0, "text": "whole", "speaker": "s1"},
        {"audio_filepath": "wav/a.wav", "offset": 0.25, "duration": 0.5, "text": "part", "lang": "en"},
    ]
    (tmp_path / "train_manifest.json").write_text(json_lines(lines) + "{broken\n")
    found = rows(tmp_path)
    assert codes(found) == {
        "train_manifest.json#1": None,
        "train_manifest.json#2": None,
        "train_manifest.json#3": "bad_record",
    }
    one, two, _ = found.values()
    assert (values(one, "ref_text", "speaker", "lang"), heard(one)) == (("whole", "s1", None), (1.0, 0.5))
    assert (values(two, "ref_text", "speaker", "lang"), heard(two)) == (("part", None, "en"), (0.5, 0.5))


def test_a_json_that_is_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model": {"audio": 16000}}')
    with pytest.raises(JobError, match=r"config\.json: no audio shard there.* There are 1 \*\.json"):
        listed(tmp_path / "config.json")


SECONDS = [{"a.wav": 0.1, "long.wav": 1.0}, {"c.wav": 0.3, "d.wav": 0.4}]
RECORDS = [
    record("a.wav", 0, speaker="s1"),
    record("long-sub1.wav", 0, offset=0.2, duration=0.3),
    record("long-sub2.wav", 0, offset=0.5, duration=0.1),
    record("c.wav", 1),
    record("gone.wav", 1),
]
WANTED = {
    "audio_0.tar#a": (None, "words of a.wav", 0.1),
    "audio_0.tar#long-sub1": (None, "words of long-sub1.wav", 0.3),
    "audio_0.tar#long-sub2": (None, "words of long-sub2.wav", 0.1),
    "audio_1.tar#c": (None, "words of c.wav", 0.3),
    "audio_1.tar#d": (None, None, 0.4),
    "audio_1.tar#gone": ("no_audio", "words of gone.wav", None),
}


def seen(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Error, text and seconds of each clip."""
    return {
        clip_id: (code, found[clip_id]["ref_text"], None if code else heard(found[clip_id])[0])
        for clip_id, code in codes(found).items()
    }


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for number, members in enumerate(SECONDS):
        tar(tmp_path / f"audio_{number}.tar", members)
    return tmp_path


@pytest.mark.parametrize("packed", [False, True])
def test_one_manifest_of_all_tars(tars: Path, packed: bool) -> None:
    text = json_lines(RECORDS)
    if packed:
        (tars / "tarred_audio_manifest.json.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (tars / "tarred_audio_manifest.json").write_text(text)
    found = rows(tars)
    assert seen(found) == WANTED
    assert found["audio_0.tar#a"]["speaker"] == "s1"
    assert values(found["audio_0.tar#long-sub1"], "start_s", "length_s", "offset") == (0.2, 0.3, 0.2)
    manifest = "tarred_audio_manifest.json" + ".gz" * packed
    message = f"{manifest} tells of gone, which has no audio in audio_1.tar"
    assert found["audio_1.tar#gone"]["error"]["message"] == message


def test_records_in_any_order(tars: Path) -> None:
    (tars / "tarred_audio_manifest.json").write_text(json_lines(RECORDS[::2] + RECORDS[1::2]))
    assert seen(rows(tars)) == WANTED


@pytest.mark.parametrize("folder", ["sharded_manifests", "."])
def test_a_manifest_of_each_tar(tars: Path, folder: str) -> None:
    (tars / folder).mkdir(exist_ok=True)
    for number in range(2):
        mine = [record for record in RECORDS if record["shard_id"] == number]
        (tars / folder / f"manifest_{number}.json").write_text(json_lines(mine))
    (tars / "tarred_audio_manifest.json").write_text(json_lines(RECORDS))
    aside: Counter[str] = Counter()
    assert [shard.name for shard in listed(tars, aside=aside)] == ["audio_0.tar", "audio_1.tar"]
    assert describe(aside) == ""
    assert seen(rows(tars)) == WANTED


def test_records_that_are_none_are_error_rows(tars: Path) -> None:
    lines = [json.dumps(record) for record in RECORDS]
    lines[1:1] = ["{broken", "", json.dumps({"shard_id": 0, "text": "no path"})]
    lines[5] = json.dumps({**RECORDS[2], "offset": "soon"})
    (tars / "tarred_audio_manifest.json").write_text("{first\n" + "\n".join(lines))
    found = rows(tars)
    odd = {clip_id: found[clip_id]["error"]["message"] for clip_id, code in codes(found).items() if code}
    name = "audio_0.tar#tarred_audio_manifest.json"
    assert odd.keys() == {
        *(f"{name}:{number}" for number in (1, 3, 5)),
        "audio_0.tar#long-sub2",
        "audio_1.tar#gone",
    }
    assert odd[f"{name}:3"].startswith("the record is not JSON in UTF-8")
    assert odd[f"{name}:5"].startswith("none of audio_filepath")
    assert odd["audio_0.tar#long-sub2"] == "`offset` must be seconds, 0 or more, and is 'soon'"
    assert {id_: one for id_, one in seen(found).items() if id_ not in odd} == {
        id_: one for id_, one in WANTED.items() if id_ not in odd
    }


def test_tars_that_are_not_there_are_told(tars: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tars / "audio_1.tar").unlink()
    (tars / "tarred_audio_manifest.json").write_text(json_lines(RECORDS))
    with caplog.at_level(logging.WARNING):
        assert list(rows(tars)) == ["audio_0.tar#a", "audio_0.tar#long-sub1", "audio_0.tar#long-sub2"]
    assert f"{tars}/tarred_audio_manifest.json tells of 1 tars that are not there" in caplog.text


def test_a_tar_cut_short_keeps_what_is_told_of_it(tars: Path) -> None:
    (tars / "tarred_audio_manifest.json").write_text(json_lines(RECORDS))
    data = (tars / "audio_1.tar").read_bytes()
    (tars / "audio_1.tar").write_bytes(data[:2000])
    found = rows(tars)
    assert {id_: code for id_, code in codes(found).items() if id_.startswith("audio_1")} == {
        "audio_1.tar#c": "truncated",
        "audio_1.tar#gone": "no_audio",
        "audio_1.tar#": "broken_shard",
    }
    assert found["audio_1.tar#c"]["ref_text"] == "words of c.wav"


def test_tars_without_such_a_manifest_are_as_before(tars: Path) -> None:
    (tars / "other.jsonl").write_text(json_lines([{"audio_filepath": "x.wav", "text": "elsewhere"}]))
    found = rows(tars)
    assert codes(found) == {
        "audio_0.tar#a": None,
        "audio_0.tar#long": None,
        "audio_1.tar#c": None,
        "audio_1.tar#d": None,
        "other.jsonl#1": None,
    }
    assert found["other.jsonl#1"]["source"] == str(tars / "x.wav")
    assert io.BytesIO(found["audio_0.tar#a"]["audio"]).read(4) == b"RIFF"


def test_a_clip_that_is_looked_up_alone_is_the_same(tars: Path) -> None:
    """As a report does, which knows the shard by its URI."""
    (tars / "tarred_audio_manifest.json").write_text(json_lines(RECORDS))
    shard = shard_at(str(tars / "audio_0.tar"), "in/audio_0.tar", STORAGE)
    assert shard is not None
    tables = READERS["tar"].tables(shard, STORAGE, Passthrough(pa.schema([])))
    found = {row["clip_id"]: row for table in tables for row in table.to_pylist()}
    assert list(found) == ["in/audio_0.tar#a", "in/audio_0.tar#long-sub1", "in/audio_0.tar#long-sub2"]
    assert heard(found["in/audio_0.tar#long-sub1"]) == (0.3, 0.5)
