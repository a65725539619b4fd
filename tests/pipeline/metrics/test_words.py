"""Word and character errors: jiwer's numbers, added up."""

from __future__ import annotations

import pickle

import jiwer
import pytest

from pipeline.metrics.words import WordErrors

ROWS = [
    {"text": "one two", "ref_text": "one two three"},
    {"text": "four", "ref_text": " four "},
    {"text": "", "ref_text": "five"},
]
UNSCORED = [
    {"text": None, "ref_text": "six"},
    {"text": "seven", "ref_text": " "},
    {"text": "eight", "ref_text": None},
    {"text": "nine"},
    {"text": "ten", "ref_text": 10},
]


def test_rows_add_up_to_the_rates_of_jiwer() -> None:
    total = WordErrors()
    for row in [*ROWS, *UNSCORED]:
        part = WordErrors()
        part.add_rows([row])
        total.add(pickle.loads(pickle.dumps(part)))
    references = [row["ref_text"].strip() for row in ROWS]
    texts = [row["text"] for row in ROWS]
    assert total.facts() == {
        "scored_clips": 3,
        "wer": pytest.approx(jiwer.wer(references, texts)),
        "cer": pytest.approx(jiwer.cer(references, texts)),
        "word_edits": {"right": 3, "wrong": 0, "missing": 2, "inserted": 0},
    }
    at_once = WordErrors()
    at_once.add_rows([*ROWS, *UNSCORED])
    assert at_once == total
    assert at_once.lines()[0] == ("WER", "40.00% over 3 clips with a reference")


def test_without_a_reference_there_is_no_rate() -> None:
    metric = WordErrors()
    metric.add_rows(UNSCORED)
    assert metric.lines() == []
    assert (metric.facts()["wer"], metric.facts()["cer"], metric.facts()["scored_clips"]) == (None, None, 0)
