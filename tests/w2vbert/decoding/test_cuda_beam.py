"""What surrounds the GPU's beam search, on the CPU; the search itself where there is a GPU."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from w2vbert import Wav2Vec2CTCTokenizer
from w2vbert.decoding.alignment import align
from w2vbert.decoding.beam import BeamDecoder, BeamOptions, as_hypothesis
from w2vbert.decoding.cuda_beam import CudaBeamDecoder, aligned_paths, available, blank_first

VOCAB = {"|": 0, "a": 1, "b": 2, "<pad>": 3}  # the blank is not where the kernels want it
BLANK = 3


@dataclass
class Found:
    """As torchaudio's CUCTCHypothesis."""

    tokens: Sequence[int] | torch.Tensor
    words: Sequence[str] = ()
    score: float = 0.0


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Wav2Vec2CTCTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.json"
    path.write_text(json.dumps(VOCAB))
    return Wav2Vec2CTCTokenizer(path, bos_token=None, eos_token=None, unk_token=None)


def test_blank_comes_first() -> None:
    assert blank_first(4, BLANK) == [3, 0, 1, 2]
    assert blank_first(3, 0) == [0, 1, 2]


def test_hypotheses_get_the_frames_of_their_best_path(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    """Tokens come in the kernels' order and the search's order; words, times and scores are the path's."""
    logits = torch.full((7, 4), -8.0)
    for frame, token in enumerate(["a", "<pad>", "a", "|", "b", "b", "<pad>"]):
        logits[frame, VOCAB[token]] = 0.0
    log_probs = logits.log_softmax(-1)
    order = blank_first(4, BLANK)
    worse, better = Found(torch.tensor([2, 1, 3], dtype=torch.int32)), Found([2, 2, 1, 3])
    impossible = Found([2] * 5)
    paths = aligned_paths([worse, impossible, better], order, log_probs, BLANK)
    first, second = (as_hypothesis(path, tokenizer) for path in paths)
    assert (first.transcript.text, second.transcript.text) == ("aa b", "a b")
    assert [(w.word, w.start_frame, w.end_frame) for w in first.transcript.words] == [
        ("aa", 0, 3),
        ("b", 4, 6),
    ]
    sure = log_probs[0, VOCAB["a"]].item()
    assert first.score == pytest.approx(7 * sure, abs=1e-5)
    assert first.transcript.confidence == pytest.approx(math.exp(sure))
    told = align(log_probs, [1, 0, 2], BLANK)
    assert second.score == pytest.approx(told.score * 7, abs=1e-4)


def test_silence(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    log_probs = torch.zeros(5, 4)
    log_probs[:, BLANK] = 9.0
    (path,) = aligned_paths([Found([])], blank_first(4, BLANK), log_probs, BLANK)
    assert as_hypothesis(path, tokenizer).transcript.text == ""


def test_scores_are_those_of_the_search_on_cpus(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    """The same readings, given as the GPU would give them, have the CPU's scores and words."""
    logits = 3 * torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    order = blank_first(4, BLANK)
    on_cpu = BeamDecoder(tokenizer, BeamOptions(nbest=5))(logits)
    found = []
    for hypothesis in on_cpu:
        text = hypothesis.transcript.text
        found.append(Found([order.index(index) for index in tokenizer.encode(text)]))
    paths = aligned_paths(found, order, logits.log_softmax(-1), BLANK)
    # A delimiter at the ends is in the path of the CPU's search, and not in the text; so scores may be lower.
    assert all(path.score <= on_cpu[0].score + 1e-3 for path in paths)
    assert {as_hypothesis(path, tokenizer).transcript.text for path in paths} == {
        hypothesis.transcript.text for hypothesis in on_cpu
    }


def test_refuses_a_tokenizer_without_blank(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    with pytest.raises(ValueError, match="needs a pad_token"):
        CudaBeamDecoder(Wav2Vec2CTCTokenizer(tmp_path / "vocab.json", pad_token=None))


@pytest.mark.skipif(not available(), reason="no GPU")
def test_on_a_gpu(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    logits = 4 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    silence = torch.zeros(50, 4)
    silence[:, BLANK] = 200.0
    decoder = CudaBeamDecoder(tokenizer, nbest=3)
    assert decoder(silence.cuda())[0].transcript.text == ""
    found = decoder(logits.cuda())
    scores = [hypothesis.score for hypothesis in found]
    assert len({hypothesis.transcript.text for hypothesis in found}) == len(found) > 1
    assert scores == sorted(scores, reverse=True)
    assert scores[0] >= BeamDecoder(tokenizer)(logits)[0].score - 3
