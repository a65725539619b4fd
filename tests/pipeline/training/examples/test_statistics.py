"""What a run would learn from, in numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.reports.summary import format_lines
from pipeline.training.examples.building import Limits, build_index
from pipeline.training.examples.labels.transcribe import Transcribe
from pipeline.training.examples.statistics import Spread, Statistics, statistics
from pipeline.training.examples.text import TextSettings
from pipeline.training.examples.vocabulary import Vocabulary, count_characters
from tests.pipeline.training.tables import FRAME_S, clip, rows_of
from w2vbert import Wav2Vec2BertConfig

SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def found(tmp_path: Path, clips: list[dict[str, Any]], **config: Any) -> Statistics:
    rows = rows_of(tmp_path, clips, "text")
    texts = [text for text in rows.table["text"].to_pylist() if text]
    vocabulary = Vocabulary.made(count_characters(texts), 2)
    settings = Wav2Vec2BertConfig(**SMALL, **config)
    labeller = Transcribe("text", TextSettings(), vocabulary.tokenizer(), settings)
    built = build_index(rows, {"transcribe": labeller}, Limits())
    return statistics(built, len(rows), FRAME_S, settings, vocabulary)


def test_numbers_add_up(tmp_path: Path) -> None:
    clips = [
        clip("x#1", 100, ref_text="ab ab"),
        clip("x#2", 50, ref_text="abba"),
        clip("x#3", ref_text="zab"),
    ]
    numbers = found(tmp_path, [*clips, clip("x#4", None)])
    assert (numbers.rows, numbers.examples, numbers.tasks) == (4, 2, {"transcribe": 2})
    assert numbers.hours == pytest.approx(3.0 / 3600)
    assert numbers.unusable == 0.5
    assert numbers.tokens is not None
    assert numbers.tokens.highest == 5
    assert numbers.ms_per_token is not None
    assert numbers.ms_per_token.median == pytest.approx((2000 / 5 + 1000 / 4) / 2)
    assert numbers.skipped == {("", "silent"): 1, ("transcribe", "unknown_characters"): 1}
    facts = json.loads(json.dumps(numbers.facts()))
    assert facts["left_out"] == {"z": 1}
    assert facts["skipped"][0] == {"task": None, "reason": "silent", "rows": 1}


def test_people_read_them(tmp_path: Path) -> None:
    clips = [
        clip("x#1", 100, ref_text="ab ab"),
        clip("x#2", 50, ref_text="b b"),
        clip("x#3", 50, ref_text="qab"),
    ]
    assert format_lines(found(tmp_path, clips).lines(), 15).splitlines() == [
        "examples       2 of 3 rows, 0.1 min",
        "transcribe     2 examples",
        "frames         median 75, 90 % of 52 to 98, at most 100",
        "tokens         median 4, 90 % of 3 to 5, at most 5",
        "ms per token   median 367, 90 % of 337 to 397, at most 400",
        "skipped        1 unknown_characters (transcribe)",
        "vocabulary     5 tokens",
        "characters     'b' 5, 'a' 3, ' ' 2",
        "left out       'q' 1",
        "hint           --set add_adapter=true halves the frames of a text: a token has 367 ms of audio, "
        "10 to 35 are advised",
        "hint           characters without a token cost 1 rows: --remove-characters 'q' would use these rows "
        "without them, a lower --min-char-count with them",
    ]


def test_no_hint_where_nothing_is_to_be_done(tmp_path: Path) -> None:
    dense = [clip(f"x#{n}", 60, ref_text="ab" * 20) for n in range(3)]
    assert found(tmp_path, dense).hints == []
    assert found(tmp_path, dense, add_adapter=True).hints == [
        "--set add_adapter=false leaves room for 3 labels that are too long after the adapter"
    ]


def test_a_spread_of_nothing_is_none() -> None:
    assert Spread.of(np.zeros(0)) is None
    assert Spread.of(np.arange(101)) == Spread(5, 50, 95, 100)
