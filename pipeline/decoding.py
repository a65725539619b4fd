"""From a clip's path and logits to hypotheses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pipeline.spec import TranscriptOptions
from w2vbert.beam import Hypothesis
from w2vbert.ctc import read_path
from w2vbert.tokenizer import Wav2Vec2CTCTokenizer


class Decoder:
    """Greedy decoding."""

    needs_logits = False
    aligns = False

    def __init__(self, options: TranscriptOptions, tokenizer: Wav2Vec2CTCTokenizer) -> None:
        self.tokenizer = tokenizer

    def read(
        self, ids: npt.NDArray[np.int64], posteriors: npt.NDArray[np.float32], logits: Tensor | None
    ) -> list[Hypothesis]:
        return [Hypothesis(read_path(ids, posteriors, self.tokenizer), 0.0)]

    def align(self, logits: Tensor, reference: str) -> Any:
        return None
