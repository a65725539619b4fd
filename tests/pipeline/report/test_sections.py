"""The numbers of the parts are those that DuckDB finds in the table."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.report.charts import Section, histogram
from pipeline.report.scoring import score
from pipeline.report.sections import sections, speakers
from pipeline.report.sections.voices import principal_axes
from pipeline.report.table import Report, opened
from pipeline.storage import Storage, StorageOptions
from tests.pipeline.report.tables import ask, write


@pytest.fixture(scope="module")
def parts(report: Report) -> dict[str, Section]:
    heard = [row["clip_id"] for row in report.rows("SELECT clip_id FROM clips ORDER BY clip_id LIMIT 6")]
    return {section.id: section for section in sections(report, heard)}


def tiles(section: Section) -> dict[str, tuple[str, str]]:
    return {tile.name: (tile.value, tile.note) for tile in section.tiles}


def chart(section: Section, title: str) -> list[dict[str, Any]]:
    (found,) = [chart for chart in section.charts if chart.title == title]
    values: list[dict[str, Any]] = found.spec["data"]["values"]
    return values


def cells(section: Section, title: str) -> list[list[str]]:
    (found,) = [table for table in section.tables if table.title == title]
    return [list(row) for row in found.rows]


def test_overview(parts: dict[str, Section], table: Path) -> None:
    found = tiles(parts["overview"])
    assert found["clips"] == ("12", "of 6 shards")
    assert ask(table, "SELECT count(DISTINCT shard) FROM clips") == 6
    assert found["audio"][0] == f"{ask(table, 'SELECT sum(duration_s) FROM clips'):.1f} s"
    assert found["errors"] == ("1", "8.33 % of the clips")
    assert found["confidence"][0] == f"{ask(table, 'SELECT 100 * avg(text_confidence) FROM clips'):.1f} %"
    assert found["encoder"][0] == "100 ×"
    assert chart(parts["overview"], "Errors by code") == [
        {"code": "undecodable", "clips": 1, "stage": "decode"}
    ]
    ((shard, errors, clips, code, _),) = cells(parts["overview"], "Shards with errors")
    assert (shard.rpartition("/")[2], errors, clips, code) == ("shard-000000.tar", "1", "3", "undecodable")
    assert cells(parts["overview"], "What came in")[0][:4] == ["jsonl", "16,000", "1", "3"]


def test_histograms_hold_every_clip(parts: dict[str, Section]) -> None:
    durations = chart(parts["overview"], "Duration")
    assert sum(bar["n"] for bar in durations) == 11
    assert all(low["high"] <= high["low"] for low, high in pairwise(durations))
    (bar,) = [bar for bar in durations if bar["low"] <= 0.6935 < bar["high"]]
    assert bar["n"] == 1


def test_the_last_bar_holds_what_is_far_out(report: Report) -> None:
    many = "(SELECT CASE WHEN i < 1000 THEN i % 10 ELSE 100000 END AS v FROM range(1001) t(i))"
    (found,) = histogram(report, "values", "v", "value", source=many)
    bars = found.spec["data"]["values"]
    assert sum(bar["n"] for bar in bars) == 1001
    assert bars[-1]["high"] < 20
    assert bars[-1]["n"] == 101
    assert bars[-1]["range"].endswith("and more")


@pytest.mark.parametrize("values", ["NULL", "'nan'::DOUBLE"])
def test_no_picture_of_nothing(report: Report, values: str) -> None:
    assert histogram(report, "nothing", values, "nothing") == []


def test_text(parts: dict[str, Section]) -> None:
    found = tiles(parts["text"])
    assert found["WER"] == ("30.00 %", "over 8 clips with a reference")  # 9 of 30 words
    assert found["CER"][1] == "30 words of references"
    assert found["words"] == ("39", "14 different")
    assert ["three", "tree", "1"] in cells(parts["text"], "Most confused words")
    by_speaker = {row["speaker"]: row for row in chart(parts["text"], "Word errors by speaker")}
    assert by_speaker["f3"]["WER"] == 0
    assert by_speaker["m4"]["WER"] == pytest.approx(4 / 7)
    assert [row["length"] for row in chart(parts["text"], "Word errors by length")] == [
        "0 to 2 s",
        "2 to 5 s",
    ]
    letters = {row[0]: row[2:] for row in cells(parts["text"], "Alphabet")}
    assert letters["g"] == ["2", "0"]  # of two transcripts without a reference


def test_labels(parts: dict[str, Section], table: Path) -> None:
    assert tiles(parts["labels"])["labels"][0] == "2"
    counts = {row["label"]: row["clips"] for row in chart(parts["labels"], "Clips of each label")}
    assert counts == {"male": 6, "female": 5}
    assert counts["male"] == ask(table, "SELECT count(*) FROM clips WHERE label = 'male'")


def test_speakers(parts: dict[str, Section], table: Path) -> None:
    found = tiles(parts["speakers"])
    assert found["turns"][0] == str(ask(table, "SELECT sum(len(segments)) FROM clips")) == "16"
    overlap = ask(
        table,
        "SELECT 100 * avg((bit_count(a) > 1)::INT) FROM (SELECT unnest(frame_activity) AS a FROM clips)",
    )
    assert found["overlap"][0] == f"{overlap:.1f} %"
    assert chart(parts["speakers"], "Speakers of a recording") == [
        {"speakers": "1", "recordings": 6},
        {"speakers": "2", "recordings": 5},
    ]
    assert len([chart for chart in parts["speakers"].charts if chart.wide]) == 4


def test_voices(parts: dict[str, Section]) -> None:
    points = chart(parts["voices"], "Map of voices")
    assert len(points) == 11
    assert sum(point["heard"] for point in points) == 6
    # By number the voices are of two kinds, which the first axis and the groups tell apart.
    sides = {
        point["by0"]: {other["x"] > 0 for other in points if other["by0"] == point["by0"]} for point in points
    }
    assert sides == {"group 1": {sides["group 1"] == {True}}, "group 2": {sides["group 2"] == {True}}}
    assert cells(parts["voices"], "Largest groups") == [["group 1", "6"], ["group 2", "5"]]


def test_principal_axes_of_a_line() -> None:
    along = np.linspace(-2, 2, 9, dtype=np.float32)
    places, kept = principal_axes(np.stack([along * 0.6, along * 0.8, along * 0], axis=1))
    np.testing.assert_allclose(places[:, 0], along, atol=1e-5)
    np.testing.assert_allclose(places[:, 1], 0, atol=1e-5)
    assert kept == pytest.approx(1)


def test_speakers_that_were_found_are_the_groups(tmp_path: Path, table: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = pq.read_table(table / "part-0.parquet")["clip_id"]
    found = pa.table(
        {"clip_id": ids, "speaker_id": ["spk_000001"] * 4 + ["spk_000002"] * 2, "similarity": [0.5] * 6}
    )
    pq.write_table(found, tmp_path / "speakers.parquet")
    with opened(str(table), Storage(StorageOptions()), 0, str(tmp_path / "speakers.parquet")) as report:
        score(report)
        speakers.prepare(report)
        voices = {section.id: section for section in sections(report, [])}["voices"]
    assert cells(voices, "Largest speakers") == [["spk_000001", "4", "0.500"], ["spk_000002", "2", "0.500"]]
    found_of = Counter(point["by0"] for point in chart(voices, "Map of voices"))
    assert found_of == {"spk_000001": 4, "spk_000002": 2, "–": 5}


@pytest.mark.parametrize(
    ("without", "left"),
    [
        (("label", "label_score", "labels"), ["overview", "text", "voices", "speakers"]),
        (("embedding",), ["overview", "text", "labels", "speakers"]),
        (("segments", "frame_activity"), ["overview", "text", "labels", "voices"]),
        (("frame_activity",), ["overview", "text", "labels", "voices", "speakers"]),
        (("text", "words", "text_confidence"), ["overview", "labels", "voices", "speakers"]),
        (("ref_text", "alignment_score"), ["overview", "text", "labels", "voices", "speakers"]),
    ],
)  # fmt: skip
def test_a_table_without_columns_has_no_such_part(
    tmp_path: Path, without: tuple[str, ...], left: list[str]
) -> None:
    table = write(tmp_path / "table", without=without)
    with opened(str(table), Storage(StorageOptions()), seed=0) as report:
        score(report)
        speakers.prepare(report)
        assert [section.id for section in sections(report, [])] == left
