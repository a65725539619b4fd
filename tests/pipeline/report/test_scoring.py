"""The tables of errors: they add up to what the summary of a run says."""

from __future__ import annotations

from pathlib import Path

import jiwer
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.words import WordErrors
from pipeline.report.scoring import score
from pipeline.report.table import Report, opened
from pipeline.storage import Storage, StorageOptions
from tests.pipeline.report.tables import rows, write

TEXTS = st.lists(st.sampled_from(["one", "two", "three", "ä b", " "]), max_size=6).map(" ".join)


def test_rates_are_those_of_the_summary(report: Report) -> None:
    expected = WordErrors()
    expected.add_rows(row for row in rows() if row.get("error") is None)
    found = report.row(
        "SELECT count(*) AS clips, sum(word_errors) / sum(words) AS wer, "
        "sum(character_errors) / sum(characters) AS cer FROM scored"
    )
    assert found == {"clips": 8, "wer": expected.words.rate, "cer": expected.characters.rate}
    assert 0 < found["cer"] < found["wer"] < 1


def test_each_clip_is_scored(report: Report) -> None:
    found = report.row("SELECT * FROM scored WHERE clip_id = 'manifest/list.jsonl#3'")
    said, heard = "seven zero three seven four seven", "seven zero three"
    assert found == {
        "clip_id": "manifest/list.jsonl#3",
        "words": 6,
        "word_errors": 3,
        "characters": len(said),
        "character_errors": round(jiwer.cer(said, heard) * len(said)),
    }


def test_words_that_met(report: Report) -> None:
    found = {
        (row["kind"], row["said"], row["heard"]): row["times"] for row in report.rows("SELECT * FROM edits")
    }
    assert found["wrong", "three", "tree"] == 1
    assert found["wrong", "three", "thre"] == 1
    assert found["inserted", "", "zero"] == 1
    assert found["equal", "two", "two"] == 2
    assert found["missing", "four", ""] == 1
    said = sum(times for (kind, *_), times in found.items() if kind != "inserted")
    assert said == sum(
        len(row["ref_text"].split()) for row in rows() if row.get("ref_text") and row.get("text")
    )


@settings(max_examples=20)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_any_texts_add_up(tmp_path_factory: object, pairs: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("texts") / "table"  # type: ignore[attr-defined]
    held = [
        {**rows()[0], "clip_id": f"a.tar#{number}", "ref_text": said, "text": heard}
        for number, (said, heard) in enumerate(pairs)
    ]
    expected = WordErrors()
    expected.add_rows(held)
    with opened(str(write(folder, held)), Storage(StorageOptions()), seed=0) as report:
        assert score(report) == expected.scored
        found = report.row("SELECT sum(word_errors) AS wrong, sum(character_errors) AS letters FROM scored")
        words, letters = expected.words, expected.characters
        assert (found["wrong"] or 0) == words.wrong + words.missing + words.inserted
        assert (found["letters"] or 0) == letters.wrong + letters.missing + letters.inserted


def test_a_table_without_references_has_empty_ones(tmp_path: Path) -> None:
    table = write(tmp_path / "table", without=("ref_text",))
    with opened(str(table), Storage(StorageOptions()), seed=0) as report:
        assert score(report) == 0
        assert report.rows("SELECT * FROM edits") == []
