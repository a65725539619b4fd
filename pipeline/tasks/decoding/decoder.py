"""From the logits of a recording to hypotheses, and to the times of a reference's words."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import torch
from torch import Tensor

from pipeline.tasks.decoding.files import DecodingFiles, beam_decoder
from pipeline.tasks.decoding.options import TranscriptOptions
from w2vbert.decoding import cuda_beam
from w2vbert.decoding.alignment import AlignmentError, WordAlignment, align_words, tokens_of
from w2vbert.decoding.beam import Hypothesis, as_hypothesis
from w2vbert.decoding.greedy import best_path
from w2vbert.decoding.normalise import TextNormaliser
from w2vbert.decoding.segments import TokenPath
from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

# Alignment takes up to two bytes for each frame and token: 1 GiB at most.
MAX_ALIGNED_CELLS = 1 << 29


class Search(Enum):
    """How hypotheses are found."""

    GREEDY = "greedy"
    BEAM = "beam"
    CUDA_BEAM = "cuda_beam"


def choose_search(options: TranscriptOptions, *, on_gpu: bool) -> Search:
    """The GPU's beam search knows neither lexicon nor language model."""
    if options.beam is None:
        return Search.GREEDY
    if on_gpu and options.lexicon is None and options.language_model is None:
        return Search.CUDA_BEAM
    return Search.BEAM


class Decoder:
    """Decodes logits as the options ask.

    Attributes:
        needs_logits: False where ids and posteriors of the best path (`w2vbert.decoding.greedy.best_path`)
            are enough, so that the logits of a recording need not be kept.
        aligns: whether references are to be aligned.
    """

    def __init__(
        self,
        options: TranscriptOptions,
        files: DecodingFiles,
        tokenizer: Wav2Vec2CTCTokenizer,
        device: torch.device,
    ) -> None:
        search = choose_search(options, on_gpu=device.type == "cuda" and cuda_beam.available())
        self.aligns = options.align
        self.needs_logits = search is not Search.GREEDY or options.align
        self._tokenizer = tokenizer
        self._normalise = TextNormaliser(tokenizer)
        self._search: Callable[[Tensor], list[Hypothesis]] = self._greedy
        if search is Search.CUDA_BEAM:
            self._search = cuda_beam.CudaBeamDecoder(
                tokenizer, nbest=options.nbest, beam_size=options.beam or 1
            )
        elif search is Search.BEAM:
            self._search = beam_decoder(options, files, tokenizer)

    def read(self, logits: Tensor) -> list[Hypothesis]:
        """The hypotheses of one recording, best first: one, or `nbest` at most.

        Args:
            logits: (frames, vocab), finite, one frame or more, on any device.
        """
        return self._search(logits)

    def align(self, logits: Tensor, reference: str | None) -> WordAlignment | None:
        """When the words of the reference are said, and how well it agrees with the audio.

        None where that is unknown: there is no reference, nothing of it is in the vocabulary, it has more
        tokens than the recording has frames for, or both are so long that alignment would take over 1 GiB.

        Args:
            logits: (frames, vocab), finite, on any device.
        """
        words = self._normalise(reference or "")
        if not words or len(logits) * len(tokens_of(words, self._tokenizer)) > MAX_ALIGNED_CELLS:
            return None
        try:
            return align_words(logits.cpu(), words, self._tokenizer)
        except AlignmentError:
            return None

    def _greedy(self, logits: Tensor) -> list[Hypothesis]:
        ids, posteriors = best_path(logits)
        path = TokenPath(ids.cpu().numpy(), posteriors.cpu().numpy(), float(posteriors.log().sum()))
        return [as_hypothesis(path, self._tokenizer)]
