"""All the real speech there is in one tree, in all four layouts, on disk and on S3: each clip has its row."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.job import run
from pipeline.spec import TranscribeSpec
from tests.jobs.test_layouts import FRAME_S, LAYOUTS, Record, Rows

DIGITS_EVERYWHERE = 150  # of 2,700: those in all four layouts
# Where no code stands, the file is annotated.
FORMATS = {
    "absurd_rate.wav": "bad_sample_rate",
    "audio-mono-16-bit-44100Hz.aiff": None,
    "audio-mono-8-bit-44100Hz.wav": None,
    "audio-stereo-24-bit-44100Hz.flac": None,
    "audio-stereo-32-bit-44100Hz.wav": None,
    "bad_header.wav": "undecodable",
    "jfk.flac": None,
    "jfk.mp3": None,
    "jfk_441khz.m4a": None,
}
AUDIO = (".wav", ".aiff", ".flac", ".mp3", ".m4a")


def all_records(data: Path) -> dict[str, list[Record]]:
    """Every recording by its folder: path below `data`, and what is said where that is known."""
    found: dict[str, list[Record]] = {}
    for folder in ("digits", "strings", "librispeech"):
        with (data / folder / "labels.tsv").open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
        found[folder] = [{"path": f"{folder}/{row['path']}", "reference": row["text"]} for row in rows]
    for folder in ("meeting", "formats", "kaldi_fbank"):
        files = sorted(file for file in (data / folder).iterdir() if file.suffix in AUDIO)
        found[folder] = [{"path": f"{folder}/{file.name}", "reference": ""} for file in files]
    return found


def expected_of(models: Path) -> dict[str, Record]:
    """What the published model gives for 260 of them, by path."""
    lines = (models / "digits-ctc" / "expected.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["path"]: record for record in map(json.loads, lines)}


def lay(tree: Path, parts: dict[str, list[Record]], data: Path) -> dict[str, Record]:
    """The tree, and the clip ids that it must give."""
    ids: dict[str, Record] = {}
    for layout, records in parts.items():
        (tree / layout).mkdir(parents=True)
        ids |= LAYOUTS[layout](tree / layout, records, data)
    return ids


def check(rows: list[dict[str, Any]], ids: dict[str, Record], expected: dict[str, Record]) -> int:
    """Asserts one row for each clip, with the right words or the right error; how many words were known."""
    by_id: Rows = {row["clip_id"]: row for row in rows}
    assert len(by_id) == len(rows), "a clip id came twice"
    assert set(by_id) == set(ids)
    codes = {f"formats/{name}": code for name, code in FORMATS.items()}
    told = {
        clip_id: (row["error"] and row["error"]["code"], row["error"] and row["error"]["message"])
        for clip_id, row in by_id.items()
    }
    wrong = {
        f"{clip_id} ({record['path']})": told[clip_id]
        for clip_id, record in ids.items()
        if told[clip_id][0] != codes.get(record["path"])
    }
    assert wrong == {}
    known = 0
    for clip_id, record in ids.items():
        row, model = by_id[clip_id], expected.get(record["path"])
        if model is not None:
            known += 1
            assert row["text"] == model["text"], clip_id
            times = [(word["word"], word["start_s"], word["end_s"]) for word in row["words"]]
            assert [word for word, _, _ in times] == [word["word"] for word in model["words"]], clip_id
            for index, edge in ((1, "start_frame"), (2, "end_frame")):
                frames = [word[edge] * FRAME_S for word in model["words"]]
                assert [time[index] for time in times] == pytest.approx(frames, abs=1e-5), clip_id
    return known


@pytest.mark.soak
def test_everything_in_one_tree(
    shared_data: Path, shared_models: Path, local_ray: None, tmp_path: Path
) -> None:
    records, expected = all_records(shared_data), expected_of(shared_models)
    assert {folder: len(found) for folder, found in records.items()} == {
        "digits": 2700,
        "strings": 60,
        "librispeech": 40,
        "meeting": 1,
        "formats": 9,
        "kaldi_fbank": 1,
    }
    assert {Path(record["path"]).name for record in records["formats"]} == set(FORMATS)
    digits = sorted(records["digits"], key=lambda record: record["path"] not in expected)
    others = [record for folder, found in records.items() if folder != "digits" for record in found]
    some = [*digits[:DIGITS_EVERYWHERE], *others]
    parts = {layout: [*digits, *others] if layout == "parquet" else some for layout in LAYOUTS}
    ids = lay(tmp_path / "tree", parts, shared_data)
    assert len(ids) == 2811 + 3 * 261

    output = tmp_path / "out"
    spec = TranscribeSpec(
        input=[str(tmp_path / "tree")], output=str(output), model=str(shared_models / "digits-ctc")
    )
    summary = run(spec).as_json()
    rows = [row for file in sorted(output.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert check(rows, ids, expected) == 260 + 3 * (60 + DIGITS_EVERYWHERE)
    bad = sum(code is not None for code in FORMATS.values())
    assert (summary["clips"], sum(summary["errors"].values())) == (len(ids), 4 * bad)


def test_a_smaller_tree_from_s3(
    shared_data: Path, shared_models: Path, moto_s3: Any, local_ray: None, tmp_path: Path
) -> None:
    records, expected = all_records(shared_data), expected_of(shared_models)
    known = [
        record for folder in ("digits", "strings") for record in records[folder] if record["path"] in expected
    ]
    some = [*known[::20], *records["librispeech"][:2], *records["formats"]]
    ids = lay(tmp_path / "tree", dict.fromkeys(LAYOUTS, some), shared_data)
    listing = tmp_path / "tree" / "manifest" / "list.jsonl"
    speech = moto_s3.uri("speech")
    listing.write_text(listing.read_text(encoding="utf-8").replace(str(shared_data.absolute()), speech))
    for record in some:
        moto_s3.client.upload_file(
            str(shared_data / record["path"]), moto_s3.bucket, f"speech/{record['path']}"
        )
    for file in sorted((tmp_path / "tree").rglob("*")):
        if file.is_file():
            key = f"tree/{file.relative_to(tmp_path / 'tree').as_posix()}"
            moto_s3.client.upload_file(str(file), moto_s3.bucket, key)
    spec = TranscribeSpec(
        input=[moto_s3.uri("tree")], output=moto_s3.uri("out"), model=str(shared_models / "digits-ctc")
    )
    run(spec)
    listed = moto_s3.client.list_objects_v2(Bucket=moto_s3.bucket, Prefix="out/")["Contents"]
    rows = []
    for item in listed:
        if item["Key"].endswith(".parquet"):
            moto_s3.client.download_file(moto_s3.bucket, item["Key"], str(tmp_path / "part.parquet"))
            rows += pq.read_table(tmp_path / "part.parquet").to_pylist()
    assert check(rows, ids, expected) == 4 * len(known[::20])
