"""CTC beam search on the GPU, by torchaudio's `cuda_ctc_decoder`: no lexicon, no language model.

Source: Hannun et al., "First-pass large vocabulary continuous speech recognition using bi-directional
recurrent DNNs" (2014), prefix beam search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from w2vbert.decoding.alignment import AlignmentError, align
from w2vbert.decoding.beam import Hypothesis, as_hypothesis
from w2vbert.decoding.segments import MAX_FRAMES, TokenPath, search_in_segments

if TYPE_CHECKING:
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

_MAX_BEAM = 128  # what the kernels have room for
_MAX_TABLE = 2**31 - 1  # they count beam x frames x vocabulary with 32 bits, and find nothing beyond


class TokenHypothesis(Protocol):
    """What `cuda_ctc_decoder` returns, as far as it is used. tokens: ids without blanks and repeats."""

    @property
    def tokens(self) -> Sequence[int] | Tensor: ...


def available() -> bool:
    """Whether this process can search on a GPU."""
    if not torch.cuda.is_available():
        return False
    try:
        from torchaudio.models.decoder import cuda_ctc_decoder  # noqa: F401
    except (ImportError, RuntimeError, OSError):  # a torchaudio built without it
        return False
    return True


class CudaBeamDecoder:
    """Finds the likeliest texts of a clip's logits, as `BeamDecoder` without a lexicon does on CPUs.

    The search sums over the paths of a text and returns it without frames. Words, frames, confidences and
    scores are then those of its best path, found by alignment: what `BeamDecoder` gives.

    Args:
        tokenizer: its `pad_token` is the blank.
        nbest: number of hypotheses to return.
        beam_size: hypotheses kept after each frame; no more than 128, nor than there are tokens.

    Raises:
        ValueError: a tokenizer without blank.
    """

    def __init__(self, tokenizer: Wav2Vec2CTCTokenizer, *, nbest: int = 1, beam_size: int = 50) -> None:
        if tokenizer.pad_token_id is None:
            raise ValueError("beam search needs a pad_token (the blank)")
        self.tokenizer = tokenizer
        self.nbest = nbest
        self._blank = tokenizer.pad_token_id
        self._beam_size = beam_size

    def __call__(self, logits: Tensor) -> list[Hypothesis]:
        """The best hypotheses of one clip, best first, `nbest` at most, each of another text.

        Args:
            logits: (frames, vocab) on the GPU, logits or log probabilities.
        """
        beam = min(self._beam_size, _MAX_BEAM, logits.shape[-1])
        longest = max(1, min(MAX_FRAMES, _MAX_TABLE // (beam * logits.shape[-1])))
        paths = search_in_segments(
            self._paths, logits.detach(), self.tokenizer, nbest=self.nbest, longest=longest
        )
        return [as_hypothesis(path, self.tokenizer) for path in paths]

    def _paths(self, logits: Tensor) -> list[TokenPath]:
        from torchaudio.models.decoder import cuda_ctc_decoder

        classes = logits.shape[-1]
        order = blank_first(classes, self._blank)
        log_probs = logits.float().log_softmax(-1)
        emissions = log_probs[:, torch.tensor(order, device=logits.device)].contiguous()
        # The search leaves out frames whose blank is not below the threshold, and fails if none remains.
        emissions[:, 0].clamp_(max=-1e-6)
        lengths = torch.tensor([len(logits)], dtype=torch.int32, device=logits.device)
        beam = min(self._beam_size, _MAX_BEAM, classes)
        with torch.cuda.device(logits.device):
            search = cuda_ctc_decoder(
                [str(index) for index in order],
                nbest=min(beam, 2 * self.nbest),  # some differ in delimiters only
                beam_size=beam,
                blank_skip_threshold=1.0,
            )
            found = search(emissions[None], lengths)[0]
        return aligned_paths(found, order, log_probs.cpu(), self._blank)


def blank_first(classes: int, blank: int) -> list[int]:
    """The ids in the order that the kernels ask for."""
    return [blank, *(index for index in range(classes) if index != blank)]


def aligned_paths(
    found: Iterable[TokenHypothesis], order: Sequence[int], log_probs: Tensor, blank: int
) -> list[TokenPath]:
    """The best path of each hypothesis, best first.

    Args:
        found: hypotheses of indices into `order`.
        log_probs: (frames, vocab) on the CPU, in the vocabulary's own order.
    """
    return sorted(_align(found, order, log_probs, blank), key=lambda path: path.score, reverse=True)


def _align(
    found: Iterable[TokenHypothesis], order: Sequence[int], log_probs: Tensor, blank: int
) -> Iterator[TokenPath]:
    for hypothesis in found:
        ids = [order[int(index)] for index in hypothesis.tokens]
        try:
            alignment = align(log_probs, ids, blank)
        except AlignmentError:  # what fills a beam wider than there are texts
            continue
        score = float(alignment.log_posteriors.sum(dtype=np.float64))
        yield TokenPath(alignment.path, np.exp(alignment.log_posteriors), score)
