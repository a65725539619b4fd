"""CTC beam search with a lexicon and an n-gram language model, by flashlight-text.

Source: Kahn et al., "Flashlight: enabling innovation in tools for machine learning" (2022); Heafield, "KenLM:
faster and smaller language model queries" (2011).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from w2vbert.decoding.greedy import Transcript, read_path
from w2vbert.decoding.segments import TokenPath, search_in_segments

if TYPE_CHECKING:
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

Lexicon = dict[str, list[list[int]]]  # the spellings of each word, in ids


class LexiconError(ValueError):
    """A lexicon that cannot be used."""


class LanguageModelError(ValueError):
    """A language model that cannot be used."""


@dataclass(frozen=True)
class Hypothesis:
    """A text of a clip, and how likely it is.

    score: log probability of its path, plus `lm_weight` times that of the language model, plus the bonuses.
    """

    transcript: Transcript
    score: float


@dataclass(frozen=True)
class BeamOptions:
    """How to search.

    Attributes:
        nbest: number of hypotheses to return.
        beam_size: hypotheses kept after each frame.
        beam_threshold: hypotheses this far below the best are dropped.
        lm_weight: of the language model's log probabilities, which KenLM gives to base 10.
        word_score: added for each word.
    """

    nbest: int = 1
    beam_size: int = 50
    beam_threshold: float = 50.0
    lm_weight: float = 2.0
    word_score: float = 0.0


class BeamDecoder:
    """Finds the likeliest texts of a clip's logits.

    Args:
        tokenizer: its `pad_token` is the blank, its `word_delimiter_token` ends words.
        options: beam and weights.
        lexicon: the words there are, as a collection, or as a file with a word and its tokens in each line.
            With it the language model is one of words; without it any spelling can come out, and the language
            model is one of tokens.
        language_model: an ARPA file or a KenLM binary.

    Raises:
        ImportError: flashlight-text is not installed.
        FileNotFoundError: no such lexicon or language model.
        LexiconError: no words in it, or tokens that are none.
        LanguageModelError: a file that KenLM cannot load, or a model that knows none of the words.
        ValueError: a tokenizer without blank or delimiter.
    """

    def __init__(
        self,
        tokenizer: Wav2Vec2CTCTokenizer,
        options: BeamOptions | None = None,
        *,
        lexicon: str | os.PathLike[str] | Iterable[str] | None = None,
        language_model: str | os.PathLike[str] | None = None,
    ) -> None:
        try:
            import flashlight.lib.text.decoder  # noqa: F401
        except ImportError as error:
            raise ImportError("beam search needs flashlight-text: pip install flashlight-text") from error

        blank, delimiter = tokenizer.pad_token_id, tokenizer.word_delimiter_token_id
        if blank is None or delimiter is None:
            raise ValueError("beam search needs a pad_token (the blank) and a word_delimiter_token")
        self.tokenizer = tokenizer
        self.options = BeamOptions() if options is None else options
        names = {index: token for token, index in tokenizer.get_vocab().items()}
        self._classes = max(names) + 1
        self._blank, self._delimiter = blank, delimiter
        spellings = None if lexicon is None else read_lexicon(lexicon, tokenizer)
        self._of_words = spellings is not None
        # What the language model scores, by index. Ids may have gaps, entries may not.
        entries = spellings or [names.get(index, f"<{index}>") for index in range(self._classes)]
        # The search holds no reference of its own to the language model.
        self._language_model = (
            None if language_model is None else load_ngrams(Path(language_model), [*entries])
        )
        self._search = self._make_search(spellings)

    def _make_search(self, spellings: Lexicon | None) -> Any:
        from flashlight.lib.text import decoder as flashlight

        if self._language_model is None:
            self._language_model = flashlight.ZeroLM()
        model, blank, delimiter = self._language_model, self._blank, self._delimiter
        options = {
            "beam_size": self.options.beam_size,
            "beam_size_token": self._classes,
            "beam_threshold": self.options.beam_threshold,
            "lm_weight": self.options.lm_weight,
            "sil_score": 0.0,
            "log_add": False,  # a hypothesis counts by its best path
            "criterion_type": flashlight.CriterionType.CTC,
        }
        if spellings is None:
            return flashlight.LexiconFreeDecoder(
                flashlight.LexiconFreeDecoderOptions(**options), model, delimiter, blank, []
            )
        trie = flashlight.Trie(self._classes, delimiter)
        start = model.start(False)
        for index, spelled in enumerate(spellings.values()):
            for ids in spelled:
                trie.insert(ids, index, model.score(start, index)[1])
        trie.smear(flashlight.SmearingMode.MAX)
        return flashlight.LexiconDecoder(
            flashlight.LexiconDecoderOptions(
                **options, word_score=self.options.word_score, unk_score=-float("inf")
            ),
            trie,
            model,
            delimiter,
            blank,
            -1,  # no index for unknown words: there are none
            [],
            False,
        )

    def __call__(self, logits: Tensor) -> list[Hypothesis]:
        """The best hypotheses of one clip, best first, `nbest` at most, each of another text.

        Words, frames and confidences are those of the hypothesis's best path, as `read_path` gives them.

        Args:
            logits: (frames, vocab), logits or log probabilities; those of a long recording are searched in
                segments (see `w2vbert.decoding.segments`).
        """
        paths = search_in_segments(self._paths, logits.detach(), self.tokenizer, nbest=self.options.nbest)
        return [as_hypothesis(path, self.tokenizer) for path in paths]

    def _paths(self, logits: Tensor) -> Iterator[TokenPath]:
        log_probs = logits.float().log_softmax(-1)[:, : self._classes].cpu()
        frames, classes = log_probs.shape
        # Words of a lexicon end with a delimiter, clips with their last letter: one more frame, where the
        # delimiter is free, lets the last word end. It is no part of the path.
        ending = torch.full((1, classes), -1e30)
        ending[0, self._blank] = 0.0
        if self._of_words:
            ending[0, self._delimiter] = 0.0
        searched = torch.cat([log_probs, ending]).contiguous()
        posteriors = log_probs.exp().numpy()
        for result in self._search.decode(searched.data_ptr(), len(searched), classes):
            ids = np.array(result.tokens[1 : frames + 1])  # between the states before and after the clip
            if self._of_words:
                # Where no hypothesis ends with a whole word, the search returns one that breaks off within.
                ends = np.flatnonzero(np.array(result.words[1:]) >= 0)
                rest = ids[ends[-1] + 1 if len(ends) else 0 :]
                rest[rest != self._delimiter] = self._blank
            yield TokenPath(ids, posteriors[np.arange(frames), ids], result.score)


def as_hypothesis(path: TokenPath, tokenizer: Wav2Vec2CTCTokenizer) -> Hypothesis:
    return Hypothesis(read_path(path.ids, path.posteriors, tokenizer), path.score)


def load_ngrams(path: Path, entries: list[str]) -> Any:
    """KenLM's model, which knows the entries (words or tokens) by their index.

    Raises:
        FileNotFoundError: no such file.
        LanguageModelError: KenLM cannot load it, or it knows none of the entries. KenLM notices files that
            are cut off, but trusts the numbers inside of its trie binaries: damaged ones may end the process.
    """
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    if not path.is_file():
        raise FileNotFoundError(f"there is no language model {path}")
    unknown = "\N{REPLACEMENT CHARACTER}"
    try:
        model = KenLM(os.fspath(path), Dictionary([*entries, unknown]))
    except (RuntimeError, UnicodeDecodeError) as problem:  # the latter: it quotes bytes that are no text
        detail = "" if isinstance(problem, UnicodeDecodeError) else f": {str(problem).splitlines()[-1]}"
        raise LanguageModelError(f"{path} is neither an ARPA file nor a KenLM binary{detail}") from problem
    start = model.start(False)
    of_unknown = model.score(start, len(entries))[1]
    if all(model.score(start, index)[1] == of_unknown for index in range(len(entries))):
        raise LanguageModelError(
            f"{path} knows none of {entries[0]!r}, {entries[-1]!r} and what is between them: "
            "with a lexicon it is a model of its words, in the same case, without a lexicon one of tokens"
        )
    return model


def read_lexicon(lexicon: str | os.PathLike[str] | Iterable[str], tokenizer: Wav2Vec2CTCTokenizer) -> Lexicon:
    """The spellings of a lexicon, as `BeamDecoder` takes it."""
    spellings: Lexicon = {}
    vocabulary = tokenizer.get_vocab()
    if isinstance(lexicon, (str, os.PathLike)):
        path = Path(lexicon)
        if not path.is_file():
            raise FileNotFoundError(f"there is no lexicon {path}")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as problem:
            raise LexiconError(f"{path} is not UTF-8 text ({problem})") from problem
        for number, line in enumerate(lines, start=1):
            word, *tokens = line.split() or [""]
            if unknown := [token for token in tokens if token not in vocabulary]:
                raise LexiconError(f"{path}, line {number}: {unknown[0]!r} is not in the vocabulary")
            if word and not tokens:
                raise LexiconError(f"{path}, line {number}: {word!r} without tokens")
            if tokens:
                spellings.setdefault(word, []).append([vocabulary[token] for token in tokens])
    else:
        ending = [vocabulary[str(tokenizer.word_delimiter_token)]]
        for word in dict.fromkeys(lexicon):
            tokens = tokenizer.tokenize(word)
            if tokens and all(token in vocabulary for token in tokens):
                spellings[word] = [[vocabulary[token] for token in tokens] + ending]
    if not spellings:
        raise LexiconError("the lexicon has no word that the vocabulary can spell")
    return spellings
