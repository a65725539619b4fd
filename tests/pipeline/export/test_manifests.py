"""NeMo manifests and Lhotse's supervisions, read back by what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lhotse
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.corpus.clips import Shard
from pipeline.corpus.readers import recognise
from pipeline.export.job import Exported, export, format_summary
from pipeline.export.spec import ExportSpec
from pipeline.schema import output_schema
from pipeline.storage import Storage, StorageOptions
from pipeline.tasks.diarize import DIARIZATION_COLUMNS
from pipeline.tasks.transcribe import TRANSCRIPT_COLUMNS
from tests.pipeline.export.tables import turns, words

CARRIED = pa.schema(
    [
        ("audio_filepath", pa.string()),
        ("offset", pa.float64()),
        ("ref_text", pa.string()),
        ("speaker", pa.string()),
        ("lang", pa.string()),
        ("sampling_rate", pa.int64()),
    ]
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A loose file, and a recording that a manifest has two parts of."""
    rng = np.random.default_rng(0)
    (tmp_path / "in/calls").mkdir(parents=True)
    for name, seconds in (("one.wav", 1.5), ("long.wav", 4.0)):
        soundfile.write(tmp_path / "in/calls" / name, rng.uniform(-0.5, 0.5, int(16000 * seconds)), 16000)
    return tmp_path / "in"


def rows(corpus: Path) -> list[dict[str, Any]]:
    manifest = {"shard": str(corpus / "parts.jsonl"), "audio_filepath": "calls/long.wav", "channels": 1}
    return [
        {
            "clip_id": "calls/one.wav#one",
            "shard": str(corpus / "calls/one.wav"),
            "duration_s": 1.5,
            "sample_rate": 16000,
            "channels": 1,
            "text": "hello world",
            "words": words(("hello", 0.02, 0.42), ("world", 0.5, 0.98)),
        },
        {
            **manifest,
            "clip_id": "parts.jsonl#1",
            "duration_s": 1.25,
            "offset": 0.5,
            "ref_text": "ja",
            "speaker": "ann",
            "lang": "de",
            "sampling_rate": 16000,
            "text": "ya",
            "words": words(("ya", 0.25, 0.5), confidence=None),
        },
        {**manifest, "clip_id": "parts.jsonl#2", "duration_s": 1.0, "extra": '{"offset": 3}', "text": ""},
        {"clip_id": "a.tar#k", "shard": str(corpus / "a.tar"), "duration_s": 2.0, "text": "in a tar"},
        {
            "clip_id": "bad.wav#bad",
            "shard": str(corpus / "bad.wav"),
            "error": {"stage": "decode", "code": "undecodable", "message": "no"},
        },
    ]


def exported(folder: Path, held: list[dict[str, Any]], format: str, output: str, **options: Any) -> Exported:
    annotations = DIARIZATION_COLUMNS if options.pop("speakers", False) else TRANSCRIPT_COLUMNS
    schema = output_schema(CARRIED, annotations)
    pq.write_table(pa.Table.from_pylist(held, schema=schema), folder / "table.parquet")
    spec = {"table": str(folder / "table.parquet"), "format": format, "output": str(folder / output)}
    return export(ExportSpec(**spec, **options))


def test_nemo(corpus: Path, tmp_path: Path) -> None:
    done = exported(tmp_path, rows(corpus), "nemo", "train.json")
    assert [json.loads(line) for line in (tmp_path / "train.json").read_text().splitlines()] == [
        {
            "audio_filepath": str(corpus / "calls/one.wav"),
            "duration": 1.5,
            "pred_text": "hello world",
            "clip_id": "calls/one.wav#one",
        },
        {
            "audio_filepath": str(corpus / "calls/long.wav"),
            "offset": 0.5,
            "duration": 1.25,
            "text": "ja",
            "pred_text": "ya",
            "speaker": "ann",
            "lang": "de",
            "clip_id": "parts.jsonl#1",
        },
        {
            "audio_filepath": str(corpus / "calls/long.wav"),
            "offset": 3.0,
            "duration": 1.0,
            "pred_text": "",
            "clip_id": "parts.jsonl#2",
        },
    ]
    assert format_summary(done).startswith(
        "clips       3 written, 2 left out (without an audio file of its own 1, undecodable 1)\n"
    )


def test_a_table_without_references_has_its_transcripts_as_text(corpus: Path, tmp_path: Path) -> None:
    schema = output_schema(CARRIED.remove(CARRIED.get_field_index("ref_text")), TRANSCRIPT_COLUMNS)
    pq.write_table(pa.Table.from_pylist(rows(corpus), schema=schema), tmp_path / "table.parquet")
    spec = {"table": str(tmp_path / "table.parquet"), "format": "nemo", "output": str(tmp_path / "out.json")}
    export(ExportSpec(**spec))
    read = [json.loads(line) for line in (tmp_path / "out.json").read_text().splitlines()]
    assert [(line["text"], line["pred_text"]) for line in read] == [(t, t) for t in ("hello world", "ya", "")]


def test_this_pipeline_reads_its_nemo_manifest_back(corpus: Path, tmp_path: Path) -> None:
    exported(tmp_path, rows(corpus), "nemo", "train.json")
    file, storage, reader = tmp_path / "train.json", Storage(StorageOptions()), recognise("train.json")
    shard = Shard(str(file), "train.json", "manifest", file.stat().st_size, "1")
    assert reader is not None
    assert reader.is_one(shard, storage)
    assert [
        (clip.source, clip.start_s, clip.length_s, clip.values.get("text"), clip.values["pred_text"])
        for clip in reader.delivered(shard, storage)
    ] == [
        (str(corpus / "calls/one.wav"), None, None, None, "hello world"),
        (str(corpus / "calls/long.wav"), 0.5, 1.25, "ja", "ya"),
        (str(corpus / "calls/long.wav"), 3.0, 1.0, None, ""),
    ]


def test_lhotse_joins_supervisions_with_recordings(corpus: Path, tmp_path: Path) -> None:
    exported(tmp_path, rows(corpus), "lhotse", "supervisions.jsonl.gz")
    supervisions = lhotse.SupervisionSet.from_file(tmp_path / "supervisions.jsonl.gz")
    lhotse.validate(supervisions)
    recordings = lhotse.RecordingSet.from_dir(
        corpus, "**/*.wav", recording_id=lambda path: path.relative_to(corpus).as_posix()
    )
    found = {
        supervision.id: (cut.recording.id, supervision, cut)
        for cut in lhotse.CutSet.from_manifests(recordings, supervisions)
        for supervision in cut.supervisions
    }
    assert set(found) == {"calls/one.wav#one", "parts.jsonl#1", "parts.jsonl#2"}
    assert [supervision.recording_id for supervision in supervisions][-1] == "a.tar#k"
    recording, one, _ = found["calls/one.wav#one"]
    assert (recording, one.start, one.duration, one.text) == ("calls/one.wav", 0.0, 1.5, "hello world")
    assert [tuple(word)[:4] for word in one.alignment["word"]] == [
        ("hello", 0.02, 0.4, 0.9),
        ("world", 0.5, 0.48, 0.9),
    ]
    recording, part, cut = found["parts.jsonl#1"]
    assert (recording, part.start, part.end) == ("calls/long.wav", 0.5, 1.75)
    assert (part.speaker, part.language, part.text) == ("ann", "de", "ya")
    assert tuple(part.alignment["word"][0])[:3] == ("ya", 0.75, 0.25)
    heard = cut.trim_to_supervisions()[0].load_audio()
    whole, _ = soundfile.read(corpus / "calls/long.wav", dtype="float32")
    np.testing.assert_array_equal(heard[0], whole[8000:28000])


def test_lhotse_has_turns_where_there_is_no_transcript(corpus: Path, tmp_path: Path) -> None:
    spoken = turns(("speaker_0", 0.0, 1.0), ("speaker_1", 0.75, 1.25))
    held = [{**row, "segments": spoken} for row in rows(corpus)[1:2]]
    for row in held:
        del row["text"], row["words"]
    exported(tmp_path, held, "lhotse", "turns.jsonl.gz", speakers=True)
    found = lhotse.SupervisionSet.from_file(tmp_path / "turns.jsonl.gz")
    assert [(turn.id, turn.recording_id, turn.start, turn.duration, turn.speaker) for turn in found] == [
        ("parts.jsonl#1-0", "calls/long.wav", 0.5, 1.0, "speaker_0"),
        ("parts.jsonl#1-1", "calls/long.wav", 1.25, 0.5, "speaker_1"),
    ]


def test_a_name_that_ends_in_gz_is_packed_and_any_other_is_not(corpus: Path, tmp_path: Path) -> None:
    exported(tmp_path, rows(corpus)[:1], "lhotse", "plain.jsonl")
    exported(tmp_path, rows(corpus)[:1], "lhotse", "packed.jsonl.gz")
    exported(tmp_path, rows(corpus)[:1], "lhotse", "clips", per_clip=True)
    plain = list(lhotse.SupervisionSet.from_file(tmp_path / "plain.jsonl"))
    assert json.loads((tmp_path / "plain.jsonl").read_text())["id"] == "calls/one.wav#one"
    for packed in (tmp_path / "packed.jsonl.gz", tmp_path / "clips/calls/one.jsonl.gz"):
        assert packed.read_bytes()[:2] == b"\x1f\x8b"
        assert list(lhotse.SupervisionSet.from_file(packed)) == plain
