"""Which clips are listed, and what the page tells of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from pipeline.report.clips import KINDS, choose, described
from pipeline.report.scoring import score
from pipeline.report.sections import speakers
from pipeline.report.table import Report, opened
from pipeline.storage import Storage, StorageOptions
from tests.pipeline.report.tables import PARQUET, TAR, rows, write


def chosen(table: Path, most: int, seed: int = 0) -> dict[str, list[str]]:
    with opened(str(table), Storage(StorageOptions()), seed) as report:
        score(report)
        speakers.prepare(report)
        return choose(report, most)


def test_all_clips_of_a_small_table_with_their_kinds(report: Report) -> None:
    found = choose(report, 100)
    assert found.keys() == {row["clip_id"] for row in rows()}
    assert found["webdataset/shard-000000.tar#000004"] == ["error"]
    by_kind = {name: [clip for clip, kinds in found.items() if name in kinds] for name in KINDS}
    assert len(by_kind["wer"]) == 5
    assert len(by_kind["random"]) == 11
    assert len(by_kind["overlap"]) == len(by_kind["speakers"]) == 5


def test_the_worst_of_each_kind_come_first(report: Report) -> None:
    found = choose(report, 8)
    assert list(found)[:3] == [
        f"{PARQUET}#1",  # all of its words are wrong
        f"{TAR}#000003",  # the lowest confidence, and the lowest alignment score
        "loose/lossless.flac#lossless",  # the least certain label
    ]
    assert len(found) == 8
    assert ["error"] in found.values()


def test_a_seed_decides_and_not_the_order_of_rows(tmp_path: Path) -> None:
    held = [{**rows()[0], "clip_id": f"a.tar#{number}"} for number in range(200)]
    plain = (
        "words",
        "text",
        "text_confidence",
        "label",
        "label_score",
        "labels",
        "segments",
        "frame_activity",
    )
    mixed = random.Random(1).sample(held, len(held))
    one = write(tmp_path / "one", held, without=plain)
    other = write(tmp_path / "other", mixed, without=plain)
    assert chosen(one, 20) == chosen(other, 20)
    assert chosen(one, 20) != chosen(one, 20, seed=1)
    assert len(chosen(one, 20)) == 20


def test_what_is_told_of_a_clip(report: Report) -> None:
    told: dict[str, Any]
    (told,) = described(report, {"manifest/list.jsonl#2": ["wer"]})
    assert told["wer"] == 0.5
    assert told["pieces"][0] == ["equal", "seven", "seven"]
    assert [word for word, *_ in told["words"]] == ["seven", "six", "seven", "seven"]
    assert told["turns"] == [["speaker_0", 0.0, 1.1895]]
    assert told["groups"] == {"speaker": "m4", "take": "1"}
    assert told["seconds"] == 2.3791
    (failed,) = described(report, {"webdataset/shard-000000.tar#000004": ["error"]})
    assert failed["error"]["code"] == "undecodable"
    assert "text" not in failed
    assert failed["reference"] == "seven zero"


def test_what_is_said_after_the_audio_ends_is_left_out(tmp_path: Path) -> None:
    long = {**rows()[0], "clip_id": "a.tar#long", "duration_s": 4000.0}
    long["words"] = [
        {"word": word, "start_s": at, "end_s": at + 1, "confidence": None}
        for word, at in (("in", 299.0), ("out", 300.0))
    ]
    table = write(tmp_path / "table", [long, rows()[1]])
    with opened(str(table), Storage(StorageOptions()), seed=0) as report:
        score(report)
        (told,) = described(report, {"a.tar#long": []})
    assert told["words"] == [["in", 299.0, 300.0, None]]
