"""What is learned from, and what is held out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

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
