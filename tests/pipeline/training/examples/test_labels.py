"""From rows to targets, or to the reasons why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Code, JobError
from pipeline.metrics.rttm import Marks, Segment, Span
from pipeline.training.examples.building import Built, Limits, build_index
from pipeline.training.examples.frames import minimum_frames, output_frames, xvector_frames
from pipeline.training.examples.index import Ragged
from pipeline.training.examples.labels.classes import Classify, Embed, classes, speakers, to_learn
from pipeline.training.examples.labels.diarize import Diarize
from pipeline.training.examples.labels.spelling import Spelling
from pipeline.training.examples.labels.transcribe import Transcribe, needed_frames
from pipeline.training.examples.text import TextSettings
from pipeline.training.examples.vocabulary import Vocabulary
from tests.pipeline.training.tables import FRAME_S, broken, clip, rows_of
from w2vbert import Wav2Vec2BertConfig, Wav2Vec2BertForXVector, Wav2Vec2BertModel

SMALL = Wav2Vec2BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
ADAPTED = Wav2Vec2BertConfig(**{**SMALL.to_dict(), "add_adapter": True, "num_adapter_layers": 2})
VOCABULARY = Vocabulary({"|": 0, "a": 1, "b": 2, "[UNK]": 3, "[PAD]": 4})


def transcribe(config: Wav2Vec2BertConfig = SMALL) -> Transcribe:
    return Transcribe("text", TextSettings(lower_case=True), VOCABULARY.tokenizer(), config)


def skipped(built: Built) -> list[tuple[Any, ...]]:
    rows = built.skipped.select(["clip_id", "task", "reason", "detail"]).to_pylist()
    return [tuple(row.values()) for row in rows]


def test_texts_are_token_ids(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [clip("x#1", ref_text="Ab  ba"), clip("x#2", ref_text="b")], "text")
    built = build_index(rows, {"transcribe": transcribe()}, Limits())
    targets = built.index.targets["transcribe"]
    assert [targets.values[n].tolist() for n in range(2)] == [[1, 2, 0, 2, 1], [2]]
    assert (targets.has.tolist(), built.skipped.num_rows) == ([True, True], 0)


def test_clips_that_cannot_be_used_are_rows_with_the_reason(tmp_path: Path) -> None:
    clips = [
        clip("long label", 5, ref_text="aaab"),
        clip("just fits", 6, ref_text="aaab"),
        clip("empty", ref_text=" \t"),
        clip("none", ref_text=None),
        clip("strange", ref_text="a dab c"),
        clip("delimiter", ref_text="a|b"),
        clip("silence", None, ref_text="a"),
        clip("30 min", 100, ref_text="a", duration_s=1800.0),
        clip("short", 4, ref_text="a", duration_s=0.1),
        broken("broken", Code.TRUNCATED, "ends in the middle"),
    ]
    limits = Limits(min_duration_s=0.101, max_duration_s=30)
    clips[0]["duration_s"] = clips[1]["duration_s"] = 0.2
    built = build_index(rows_of(tmp_path, clips, "text"), {"transcribe": transcribe()}, limits)
    assert built.index.clip_ids.to_pylist() == ["just fits"]
    assert built.index.row.tolist() == [1]
    assert skipped(built) == [
        ("silence", None, "silent", None),
        ("30 min", None, "too_long", "1800.00 s"),
        ("short", None, "too_short", "0.10 s"),
        ("broken", None, "truncated", "ends in the middle"),
        ("long label", "transcribe", "label_too_long", "4 tokens need 6 frames, there are 5: aaab"),
        ("empty", "transcribe", "empty_label", None),
        ("none", "transcribe", "no_label", None),
        ("strange", "transcribe", "unknown_characters", "dc in: a dab c"),
        ("delimiter", "transcribe", "unknown_characters", "| in: a|b"),
    ]


def test_a_special_token_is_no_text(tmp_path: Path) -> None:
    """Its id would be the blank's, which no label may have."""
    vocabulary = Vocabulary({token: n for n, token in enumerate(["|", *"ADP[]", "[UNK]", "[PAD]"])})
    labeller = Transcribe("text", TextSettings(), vocabulary.tokenizer(), SMALL)
    clips = [clip("x#1", ref_text="A[PAD]"), clip("x#2", ref_text="A PAD")]
    built = build_index(rows_of(tmp_path, clips, "text"), {"transcribe": labeller}, Limits())
    assert skipped(built) == [("x#1", "transcribe", "unknown_characters", "a special token in: A[PAD]")]


@pytest.mark.parametrize(
    "ids",
    [
        ["|", "a", "b", "é", "[UNK]", "[PAD]"],
        ["<pad>", "<s>", "</s>", "<unk>", "a", "b", "ab", "é"],  # a token of two characters; no delimiter
        ["|", " ", "A", "B", "[UNK]", "[PAD]"],
    ],
)
@given(texts=st.lists(st.text(alphabet="ab é|[UNK]<s>𝄞\u0301") | st.sampled_from(["a[PAD] b", "<s>", ""])))
def test_texts_are_spelled_as_the_tokenizer_spells_them(ids: list[str], texts: list[str]) -> None:
    tokenizer = Vocabulary({token: n for n, token in enumerate(ids)}).tokenizer()
    tokens, unspelled = Spelling(tokenizer)(texts)
    for number, text in enumerate(texts):
        spelled = tokenizer.encode(text)
        bad = {tokenizer.unk_token_id, tokenizer.pad_token_id} & set(spelled) or "|" in text
        assert unspelled[number] == bool(bad)
        assert tokens[number].tolist() == ([] if bad else spelled)


def test_an_adapter_leaves_fewer_frames_for_a_label(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [clip("x#1", 12, ref_text="ababab"), clip("x#2", 12, ref_text="aba")], "text")
    assert len(build_index(rows, {"transcribe": transcribe()}, Limits()).index) == 2
    built = build_index(rows, {"transcribe": transcribe(ADAPTED)}, Limits())
    assert skipped(built) == [
        ("x#1", "transcribe", "label_too_long", "6 tokens need 6 frames, there are 3: ababab")
    ]


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        ADAPTED,
        Wav2Vec2BertConfig(**{**ADAPTED.to_dict(), "adapter_kernel_size": 7, "adapter_stride": 3}),
    ],
)
def test_frames_are_those_that_the_model_makes(config: Wav2Vec2BertConfig) -> None:
    model = Wav2Vec2BertModel(config)
    least = minimum_frames(config)
    lengths = list(range(least, least + 60))
    assert output_frames(config, np.array(lengths, np.int32)).tolist() == list(model.output_lengths(lengths))
    if least > 1:
        assert output_frames(config, np.array([least - 1], np.int32)).tolist() == [0]


@given(st.lists(st.lists(st.integers(1, 3), max_size=8), max_size=6))
def test_a_blank_is_needed_between_equal_tokens(texts: list[list[int]]) -> None:
    values = np.array([token for text in texts for token in text], np.int32)
    offsets = np.concatenate(([0], np.cumsum([len(text) for text in texts]))).astype(np.int64)
    expected = [len(text) + sum(len(list(run)) - 1 for _, run in groupby(text)) for text in texts]
    assert needed_frames(Ragged(values, offsets)).tolist() == expected


@pytest.mark.parametrize("text", [[1, 1, 2], [1, 2, 1], [2, 2, 2]])
def test_needed_frames_are_where_the_loss_becomes_finite(text: Sequence[int]) -> None:
    needed = int(needed_frames(Ragged(np.array(text, np.int32), np.array([0, 3])))[0])
    for frames, finite in ((needed, True), (needed - 1, False)):
        loss = torch.nn.functional.ctc_loss(
            torch.zeros(frames, 1, 4).log_softmax(-1), torch.tensor([text]), (frames,), (3,), blank=0
        )
        assert bool(loss.isfinite()) == finite


def test_classes_are_numbered_by_name(tmp_path: Path) -> None:
    names = ["no", "yes", " no ", None, "", "maybe"]
    rows = rows_of(tmp_path, [clip(f"x#{n}", ref_label=name) for n, name in enumerate(names)], "label")
    assert to_learn(classes(rows.table, "label"), "label") == ["maybe", "no", "yes"]
    built = build_index(rows, {"classify": Classify("label", ["no", "yes"])}, Limits())
    targets = built.index.targets["classify"]
    assert built.index.clip_ids.to_pylist() == ["x#0", "x#1", "x#2"]
    assert targets.values.values.tolist() == [0, 1, 0]
    assert skipped(built) == [
        ("x#3", "classify", "no_label", None),
        ("x#4", "classify", "empty_label", None),
        ("x#5", "classify", "unknown_class", "maybe"),
    ]


def test_no_class_at_all_is_an_error(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [clip("x#1", ref_label=""), clip("x#2", ref_label=None)], "label")
    with pytest.raises(JobError, match=r"the column 'label' is empty in all of the 2 rows"):
        to_learn(classes(rows.table, "label"), "label")


def test_x_vectors_need_enough_frames(tmp_path: Path) -> None:
    least = Wav2Vec2BertForXVector(SMALL).minimum_frames
    assert xvector_frames(SMALL) == least
    rows = rows_of(
        tmp_path, [clip("x#1", least, speaker="a"), clip("x#2", least - 1, speaker="a")], "speaker"
    )
    built = build_index(rows, {"embed": Embed("speaker", ["a"], SMALL)}, Limits())
    assert built.index.clip_ids.to_pylist() == ["x#1"]
    assert skipped(built) == [
        ("x#2", "embed", "too_short", f"an x-vector needs {least} frames, there are {least - 1}")
    ]
    assert len(build_index(rows, {"embed": Embed("speaker", ["a"], ADAPTED)}, Limits()).index) == 0


def test_at_another_speed_somebody_else_speaks(tmp_path: Path) -> None:
    least = int(xvector_frames(SMALL))
    clips = [clip(f"x#{n}", least, speaker=" a ", speed=speed) for n, speed in enumerate((1.0, 0.9, 1.1))]
    rows = rows_of(tmp_path, [*clips, clip("x#3", least, speaker="", speed=0.9)], "speaker")
    names = to_learn(speakers(rows.table, "speaker"), "speaker")
    assert names == ["a", "a at 0.9", "a at 1.1"]
    built = build_index(rows, {"embed": Embed("speaker", names, SMALL)}, Limits())
    targets = built.index.targets["embed"].values
    assert [targets[n].tolist() for n in range(3)] == [[0], [1], [2]]
    assert [row[2] for row in skipped(built)] == ["empty_label"]


MARKS = {
    "one": Marks([Segment("b", 0.5, 1.0), Segment("a", 0.0, 0.61)]),
    "three": Marks([Segment(name, 0, 1) for name in "abc"]),
    "late": Marks([Segment("a", 0, 1), Segment("b", 1.2, 2)]),
    "part": Marks([Segment("a", 0, 1)], [Span(0.9, 1.5)]),
}


def diarized(tmp_path: Path, *clips: dict[str, Any]) -> Built:
    return build_index(rows_of(tmp_path, clips), {"diarize": Diarize(MARKS, 2, FRAME_S)}, Limits())


def triples(built: Built) -> list[list[int]]:
    values = built.index.targets["diarize"].values
    return [values[n].tolist() for n in range(len(built.index))]


def test_marks_are_turns_in_frames(tmp_path: Path) -> None:
    built = diarized(tmp_path, clip("a.tar#one", 40), clip("a.tar#late", 50))
    # Speakers in the order in which they begin, cut to the clip; who speaks after its end is not in it.
    assert triples(built) == [[0, 0, 30, 1, 25, 40], [0, 0, 50]]


def test_a_faster_clip_has_earlier_turns(tmp_path: Path) -> None:
    built = diarized(tmp_path, clip("a.tar#one", 25, speed=2.0), clip("b.tar#one/x", 100, speed=0.5))
    assert triples(built) == [[0, 0, 15, 1, 12, 25]]


def test_clips_without_usable_marks(tmp_path: Path) -> None:
    built = diarized(
        tmp_path, clip("a.tar#three"), clip("a.tar#other"), clip("a.tar#part", 50), clip("b.tar#part", 40)
    )
    assert skipped(built) == [
        ("a.tar#three", "diarize", "too_many_speakers", "3 speakers, the head tells 2 apart"),
        ("a.tar#other", "diarize", "no_label", None),
        ("a.tar#part", "diarize", "ambiguous_name", "other clips answer to part of the RTTM too"),
        ("b.tar#part", "diarize", "ambiguous_name", "other clips answer to part of the RTTM too"),
    ]
    assert skipped(diarized(tmp_path, clip("part", 50))) == [("part", "diarize", "unscored", None)]
    assert triples(diarized(tmp_path, clip("part", 40))) == [[0, 0, 40]]


def test_the_surest_name_counts(tmp_path: Path) -> None:
    built = diarized(tmp_path, clip("one", 20), clip("x.tar#one", 20))
    assert built.index.clip_ids.to_pylist() == ["one"]
    both_speeds = diarized(tmp_path, clip("one", 20), clip("one", 22, speed=0.9))
    assert len(both_speeds.index) == 2


def test_a_clip_with_a_target_for_one_task_is_an_example(tmp_path: Path) -> None:
    clips = [
        clip("text", ref_text="a", ref_label=None),
        clip("label", ref_text=None, ref_label="yes"),
        clip("neither", ref_text=None, ref_label=None),
    ]
    rows = rows_of(tmp_path, clips, "text", "label")
    built = build_index(rows, {"transcribe": transcribe(), "classify": Classify("label", ["yes"])}, Limits())
    index = built.index
    assert index.clip_ids.to_pylist() == ["text", "label"]
    assert index.targets["transcribe"].has.tolist() == [True, False]
    assert index.targets["classify"].has.tolist() == [False, True]
    assert index.targets["transcribe"].values[1].tolist() == []
    assert [row[:3] for row in skipped(built)] == [
        ("label", "transcribe", "no_label"),
        ("neither", "transcribe", "no_label"),
        ("text", "classify", "no_label"),
        ("neither", "classify", "no_label"),
    ]


def test_without_tasks_every_usable_clip_is_an_example(tmp_path: Path) -> None:
    built = build_index(
        rows_of(tmp_path, [clip("a"), clip("b", None), clip("c", 1)]), {}, Limits(min_frames=2)
    )
    assert built.index.clip_ids.to_pylist() == ["a"]
    assert [row[2] for row in skipped(built)] == ["silent", "too_short"]
