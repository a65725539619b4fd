"""Our beam search against torchaudio's decoder over the same library: the same readings and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchaudio.models.decoder import ctc_decoder

from tests.ngrams import arpa, lexicon
from w2vbert import Wav2Vec2CTCTokenizer
from w2vbert.decoding.beam import BeamDecoder, BeamOptions, Hypothesis

WEIGHTS = {"beam_size": 30, "beam_threshold": 40.0, "lm_weight": 1.3, "word_score": -0.4}
SENTENCES = ["one two three", "one two four", "nine zero zero one", "five six seven eight nine", "two two"]


@pytest.fixture(scope="module")
def tokenizer(shared_models: Path) -> Wav2Vec2CTCTokenizer:
    return Wav2Vec2CTCTokenizer.from_pretrained(shared_models / "digits-ctc")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("language")
    (folder / "words.arpa").write_text(arpa(SENTENCES))
    (folder / "lexicon.txt").write_text(lexicon())
    return {"language_model": folder / "words.arpa", "lexicon": folder / "lexicon.txt"}


def torchaudio_decoder(tokenizer: Wav2Vec2CTCTokenizer, nbest: int, files: dict[str, Path]) -> Any:
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return ctc_decoder(
        lexicon=str(files["lexicon"]) if files else None,
        lm=str(files["language_model"]) if files else None,
        tokens=[token for token, _ in vocabulary],
        nbest=nbest,
        blank_token="<pad>",
        sil_token="|",
        unk_word="<unk>",
        **WEIGHTS,
    )


def ours(
    tokenizer: Wav2Vec2CTCTokenizer, logits: Tensor, nbest: int, files: dict[str, Path]
) -> list[Hypothesis]:
    return BeamDecoder(tokenizer, BeamOptions(nbest=nbest, **WEIGHTS), **files)(logits)


def theirs(decoder: Any, logits: Tensor, *, ended: bool) -> list[tuple[list[str], float]]:
    """Words and score of each hypothesis. ended: with the frame that lets our last word end (see beam.py)."""
    log_probs = logits.log_softmax(-1)
    if ended:
        ending = torch.full((1, logits.shape[1]), -1e30)
        ending[0, [0, 4]] = 0.0
        log_probs = torch.cat([log_probs, ending])
    found = decoder(log_probs[None])[0]
    return [(hypothesis.words, hypothesis.score) for hypothesis in found]


@pytest.mark.parametrize("seed", range(5))
def test_random_logits(tokenizer: Wav2Vec2CTCTokenizer, files: dict[str, Path], seed: int) -> None:
    logits = 3 * torch.randn(80, 20, generator=torch.Generator().manual_seed(seed))
    decoder = torchaudio_decoder(tokenizer, 3, files)
    (words, score), *_ = theirs(decoder, logits, ended=True)
    best = ours(tokenizer, logits, 3, files)[0]
    assert best.transcript.text.split() == words
    assert best.score == pytest.approx(score, abs=1e-3)


def test_random_logits_without_lexicon(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    logits = 3 * torch.randn(80, 20, generator=torch.Generator().manual_seed(9))
    decoder = torchaudio_decoder(tokenizer, 1, {})
    ending = torch.full((1, 20), -1e30)
    ending[0, 0] = 0.0
    (found,) = decoder(torch.cat([logits.log_softmax(-1), ending])[None])[0]
    (best,) = ours(tokenizer, logits, 1, {})
    letters = "".join(decoder.idxs_to_tokens(found.tokens)).replace("|", " ")
    assert best.transcript.text == letters.strip()
    assert best.score == pytest.approx(found.score, abs=1e-3)


def test_real_speech(
    tokenizer: Wav2Vec2CTCTokenizer,
    files: dict[str, Path],
    digit_strings: list[tuple[dict[str, Any], Tensor]],
) -> None:
    decoder = torchaudio_decoder(tokenizer, 1, files)
    last_words_lost = 0
    for clip, logits in digit_strings:
        ((words, score),) = theirs(decoder, logits, ended=True)
        (best,) = ours(tokenizer, logits, 1, files)
        assert (clip["path"], best.transcript.text.split()) == (clip["path"], words)
        assert best.score == pytest.approx(score, abs=1e-3), clip["path"]
        ((plain, _),) = theirs(decoder, logits, ended=False)
        last_words_lost += plain == words[:-1]
    # What that frame is for: without it a last word may be lost that no delimiter follows.
    assert last_words_lost >= 1
