"""Forced alignment against every path there is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from w2vbert import Wav2Vec2CTCTokenizer
from w2vbert.decoding.alignment import AlignmentError, align
from w2vbert.decoding.greedy import best_path, read_path


def random_logits(frames: int, classes: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(frames, classes, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 6),
    ids=st.lists(st.integers(0, 3), max_size=3),
    blank=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_likeliest_path(frames: int, ids: list[int], blank: int, seed: int) -> None:
    logits = random_logits(frames, 4, seed)
    log_probs = logits.log_softmax(-1)

    def total(path: tuple[int, ...]) -> float:
        return sum(log_probs[frame, label].item() for frame, label in enumerate(path))

    says = [
        path
        for path in itertools.product(range(4), repeat=frames)
        if [label for label, _ in itertools.groupby(path) if label != blank] == ids
    ]
    if not says:
        with pytest.raises(AlignmentError):
            align(logits, ids, blank)
        return
    alignment = align(logits, ids, blank)
    assert alignment.score * frames == pytest.approx(max(map(total, says)), abs=1e-4)
    assert [token.id for token in alignment.tokens] == ids
    for token in alignment.tokens:
        assert set(alignment.path[token.start_frame : token.end_frame]) == {token.id}
        mean = log_probs[token.start_frame : token.end_frame, token.id].mean().item()
        assert token.score == pytest.approx(mean, abs=1e-5)
    covered = sum(token.end_frame - token.start_frame for token in alignment.tokens)
    assert covered == np.count_nonzero(alignment.path != blank)


def test_words_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "|": 1, "a": 2, "b": 3}))
    tokenizer = Wav2Vec2CTCTokenizer(tmp_path / "vocab.json", bos_token=None, eos_token=None, unk_token=None)
    logits = random_logits(40, 4, seed=0)
    alignment = align(logits, tokenizer.encode("aab b"), tokenizer.pad_token_id)
    transcript = read_path(alignment.path, np.exp(alignment.log_posteriors), tokenizer)
    assert transcript.text == "aab b"
    first, second = transcript.words
    assert (first.word, second.word) == ("aab", "b")
    assert first.start_frame == alignment.tokens[0].start_frame
    assert first.end_frame == alignment.tokens[2].end_frame
    assert second.start_frame == alignment.tokens[4].start_frame
    # What the model itself would say is never less likely than what it is told.
    greedy = read_path(*best_path(logits), tokenizer).text
    assert align(logits, tokenizer.encode(greedy)).score > alignment.score


def test_what_cannot_be_said() -> None:
    logits = random_logits(3, 4, seed=0)
    with pytest.raises(AlignmentError, match="2 tokens need 3 frames or more, but there are 2"):
        align(logits[:2], [1, 1])
    with pytest.raises(AlignmentError, match="0 tokens need 1 frames"):
        align(logits[:0], [])
    for wrong in (0, 4, -1):
        with pytest.raises(AlignmentError, match=f"id {wrong} cannot be aligned"):
            align(logits, [wrong])
