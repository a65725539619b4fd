"""What is learned from, and what is held out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import JobError
from pipeline.training.labelling import Labelled, Start, label
from pipeline.training.spec import FinetuneSpec
from tests.pipeline.training.tables import FRAME_S, STORAGE, clip, write
from w2vbert.config import Wav2Vec2BertConfig

START = Start(Wav2Vec2BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=8), None)


def labelled(train: str, held: Sequence[str] = (), **given: Any) -> Labelled:
    told = {
        "task": ["transcribe"],
        "train": ["corpus"],
        "model": "base",
        "output": "out",
        "min_char_count": 1,
    }
    return label(FinetuneSpec(**{**told, **given}), START, [train], held, STORAGE, FRAME_S)


def clips(voices: int) -> list[dict[str, Any]]:
    return [clip(f"x#{n:02}", ref_text="ab", speaker=f"s{n % voices}") for n in range(20)]


def test_some_speakers_are_held_out_by_default(tmp_path: Path) -> None:
    found = labelled(write(tmp_path / "a.parquet", clips(4)))
    assert found.valid is not None
    held_out = {int(clip_id[2:]) % 4 for clip_id in found.valid.index.clip_ids.to_pylist()}
    (speaker,) = held_out
    assert found.validation == f"held out of --train, 1 of 4 speakers (s{speaker})"
    assert (len(found.train.index), len(found.valid.index)) == (15, 5)


@pytest.mark.parametrize("columns", [{}, {"speaker_column": "nobody"}])
def test_or_some_clips(tmp_path: Path, columns: dict[str, str]) -> None:
    found = labelled(write(tmp_path / "a.parquet", clips(4 if columns else 1)), **columns)
    assert found.valid is not None
    assert found.validation == f"held out of --train, {len(found.valid.index)} of 20 clips"
    assert 1 <= len(found.valid.index) <= 3


def test_or_what_is_given(tmp_path: Path) -> None:
    train, valid = (write(tmp_path / name / "a.parquet", clips(4)) for name in ("train", "valid"))
    found = labelled(train, [valid], valid=["dev", "test"])
    assert found.validation == "dev, test"
    assert len(found.train.index) == 20


def test_or_nothing(tmp_path: Path) -> None:
    assert labelled(write(tmp_path / "a.parquet", clips(4)), valid_share=0).valid is None


def test_a_task_that_nothing_teaches_is_refused(tmp_path: Path) -> None:
    """Its head would be published as it was drawn."""
    rows = [row | {"ref_label": "dog"} for row in clips(4)]
    vocab = tmp_path / "vocab.json"
    vocab.write_text('{"[PAD]": 0, "[UNK]": 1, "|": 2, "A": 3}')
    told = r"transcribe: unknown_characters \(ab in: ab\); see --lower-case, --remove-characters and --vocab$"
    with pytest.raises(JobError, match=told):
        labelled(write(tmp_path / "a.parquet", rows), task=["classify", "transcribe"], vocab=str(vocab))


@pytest.mark.parametrize("held_out", ["nobody", "without a speaker"])
def test_voices_may_be_learned_without_measuring_them(tmp_path: Path, held_out: str) -> None:
    train = write(tmp_path / "train" / "a.parquet", clips(4))
    nameless = [clip("y", ref_text="ab", speaker=None), clip("z", ref_text="ab", speaker="s1")][:1]
    given: dict[str, Any] = {"valid_share": 0}
    held = []
    if held_out != "nobody":
        held, given = [write(tmp_path / "valid" / "b.parquet", nameless)], {"valid": ["dev"]}
    found = labelled(train, held, task=["embed", "transcribe"], **given)
    assert found.train.index.targets["embed"].has.sum() == 20
    assert found.valid is None or not found.valid.index.targets["embed"].has.any()


def test_a_recording_is_marked_in_one_file(tmp_path: Path) -> None:
    lines = ["SPEAKER 00 1 0.0 0.5 <NA> <NA> a <NA> <NA>", "SPEAKER 00 1 0.6 0.5 <NA> <NA> b <NA> <NA>"]
    for name, line in zip("ab", lines, strict=True):
        (tmp_path / f"{name}.rttm").write_text(line + "\n")
    both = [str(tmp_path / f"{name}.rttm") for name in "ab"]
    train = write(tmp_path / "a.parquet", clips(4))
    with pytest.raises(JobError, match=r"^--rttm .*b\.rttm: 00 is in another RTTM file too"):
        labelled(train, task=["diarize"], rttm=both)
