"""CTC beam search with a lexicon and an n-gram language model, by flashlight-text.

Source: Kahn et al., "Flashlight: enabling innovation in tools for machine learning" (2022); Heafield, "KenLM:
faster and smaller language model queries" (2011).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from w2vbert.ctc import Transcript, read_path

if TYPE_CHECKING:
    from w2vbert.tokenizer import Wav2Vec2CTCTokenizer

Lexicon = dict[str, list[list[int]]]  # the spellings of each word, in ids


@dataclass(frozen=True)
class Hypothesis:
    """One reading of a clip.

    score: log probability of its path, plus `lm_weight` times that of the language model, plus the bonuses.
    """

    transcript: Transcript
    score: float


class BeamDecoder:
    """Finds the likeliest readings of a clip's logits.

    Args:
        tokenizer: its `pad_token` is the blank, its `word_delimiter_token` ends words.
        lexicon: the words there are, as a collection, or as a file with a word and its tokens in each line.
            With it the language model is one of words; without it any spelling can come out, and the language
            model is one of tokens.
        language_model: an ARPA file or a KenLM binary.
        nbest: how many readings to return.
        beam_size: hypotheses kept after each frame.
        beam_size_token: tokens tried in each frame; None: all.
        beam_threshold: hypotheses this far below the best are dropped.
        lm_weight: of the language model's log probabilities, which KenLM gives to base 10.
        word_score, silence_score: added for each word, and for each word delimiter.
        log_add: sum the paths of a hypothesis instead of taking the best one.

    Raises:
        ImportError: flashlight-text is not installed.
        FileNotFoundError: no such lexicon or language model.
        ValueError: a lexicon without words, or with tokens that are none, or a tokenizer without blank or
            delimiter.
    """

    def __init__(
        self,
        tokenizer: Wav2Vec2CTCTokenizer,
        *,
        lexicon: str | os.PathLike[str] | Iterable[str] | None = None,
        language_model: str | os.PathLike[str] | None = None,
        nbest: int = 1,
        beam_size: int = 50,
        beam_size_token: int | None = None,
        beam_threshold: float = 50.0,
        lm_weight: float = 2.0,
        word_score: float = 0.0,
        silence_score: float = 0.0,
        log_add: bool = False,
    ) -> None:
        try:
            from flashlight.lib.text import decoder as flashlight
            from flashlight.lib.text.decoder.kenlm import KenLM
            from flashlight.lib.text.dictionary import Dictionary
        except ImportError as error:
            raise ImportError("beam search needs flashlight-text: pip install flashlight-text") from error

        blank, delimiter = tokenizer.pad_token_id, tokenizer.word_delimiter_token_id
        if blank is None or delimiter is None:
            raise ValueError("beam search needs a pad_token (the blank) and a word_delimiter_token")
        self.tokenizer = tokenizer
        self.nbest = nbest
        names = {index: token for token, index in tokenizer.get_vocab().items()}
        self._classes = max(names) + 1
        self._free = [blank] if lexicon is None else [blank, delimiter]
        options = {
            "beam_size": beam_size,
            "beam_size_token": beam_size_token or self._classes,
            "beam_threshold": beam_threshold,
            "lm_weight": lm_weight,
            "sil_score": silence_score,
            "log_add": log_add,
            "criterion_type": flashlight.CriterionType.CTC,
        }
        spellings = None if lexicon is None else _spellings(lexicon, tokenizer)
        # What the language model scores, by index. Ids may have gaps, entries may not.
        entries = spellings or [names.get(index, f"<{index}>") for index in range(self._classes)]
        if language_model is None:
            model = flashlight.ZeroLM()
        elif Path(language_model).is_file():
            model = KenLM(os.fspath(language_model), Dictionary(list(entries)))
        else:
            raise FileNotFoundError(f"there is no language model {os.fspath(language_model)}")
        self._language_model = model  # the search holds no reference of its own
        if spellings is None:
            self._search = flashlight.LexiconFreeDecoder(
                flashlight.LexiconFreeDecoderOptions(**options), model, delimiter, blank, []
            )
            return
        trie = flashlight.Trie(self._classes, delimiter)
        start = model.start(False)
        for index, spelled in enumerate(spellings.values()):
            for ids in spelled:
                trie.insert(ids, index, model.score(start, index)[1])
        trie.smear(flashlight.SmearingMode.MAX)
        self._search = flashlight.LexiconDecoder(
            flashlight.LexiconDecoderOptions(**options, word_score=word_score, unk_score=-float("inf")),
            trie,
            model,
            delimiter,
            blank,
            -1,  # no index for unknown words: there are none
            [],
            False,
        )

    def __call__(self, logits: Tensor) -> list[Hypothesis]:
        """The best readings of one clip, best first, `nbest` at most.

        Words, frames and confidences are those of the hypothesis's best path, as `decode_greedy` gives them.

        Args:
            logits: (frames, vocab), logits or log probabilities.
        """
        log_probs = logits.detach().float().log_softmax(-1)[:, : self._classes].cpu()
        frames, classes = log_probs.shape
        if not frames:
            return []
        # Words of a lexicon end with a delimiter, clips with their last letter: one more frame, where the
        # delimiter is free, lets the last word end. It is no part of the path.
        ending = torch.full((1, classes), -1e30)
        ending[0, self._free] = 0.0
        searched = torch.cat([log_probs, ending]).contiguous()
        results = self._search.decode(searched.data_ptr(), len(searched), classes)
        posteriors = log_probs.exp().numpy()
        hypotheses = []
        for result in results[: self.nbest]:
            path = np.array(result.tokens[1 : frames + 1])  # between the states before and after the clip
            transcript = read_path(path, posteriors[np.arange(frames), path], self.tokenizer)
            hypotheses.append(Hypothesis(transcript, result.score))
        return hypotheses


def _spellings(lexicon: str | os.PathLike[str] | Iterable[str], tokenizer: Wav2Vec2CTCTokenizer) -> Lexicon:
    spellings: Lexicon = {}
    vocabulary = tokenizer.get_vocab()
    if isinstance(lexicon, (str, os.PathLike)):
        if not Path(lexicon).is_file():
            raise FileNotFoundError(f"there is no lexicon {os.fspath(lexicon)}")
        for number, line in enumerate(Path(lexicon).read_text(encoding="utf-8").splitlines(), start=1):
            word, *tokens = line.split() or [""]
            if unknown := [token for token in tokens if token not in vocabulary]:
                raise ValueError(f"{lexicon}, line {number}: {unknown[0]!r} is not in the vocabulary")
            if tokens:
                spellings.setdefault(word, []).append([vocabulary[token] for token in tokens])
    else:
        ending = [vocabulary[str(tokenizer.word_delimiter_token)]]
        for word in dict.fromkeys(lexicon):
            tokens = tokenizer.tokenize(word)
            if tokens and all(token in vocabulary for token in tokens):
                spellings[word] = [[vocabulary[token] for token in tokens] + ending]
    if not spellings:
        raise ValueError("the lexicon has no word that the vocabulary can spell")
    return spellings
