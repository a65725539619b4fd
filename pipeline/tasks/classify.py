"""Labels: class scores of the mean over all windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.features.windows import Window
from pipeline.spec import LabelOptions, Task
from pipeline.tasks.base import Clip, Piece, Values, spans
from w2vbert.heads import Wav2Vec2BertForSequenceClassification
from w2vbert.heads.moments import segment_mean_std
from w2vbert.model import Encoding


class LabelHead:
    """Wav2Vec2BertForSequenceClassification: scores are probabilities, by softmax or, where labels do not
    exclude each other (`multi_label_classification`), by sigmoid; of a regression they are its values."""

    def __init__(self, model: Wav2Vec2BertForSequenceClassification, options: LabelOptions) -> None:
        self.model = model
        self.top_k = options.top_k
        self.names = [name for _, name in sorted((model.config.id2label or {}).items())]

    def outputs(self, encoding: Encoding, pieces: Sequence[Piece]) -> Sequence[Any]:
        """Logits (labels,) of whole clips; of other pieces the projected frames, (n, projection)."""
        projected = self.model.project(encoding)
        found: list[Any] = list(projected.split())
        whole = [index for index, piece in enumerate(pieces) if piece.clip.whole]
        if whole:
            means, _ = segment_mean_std(projected.frames, attended_spans(encoding, pieces, whole))
            logits = self.model.classifier(means.to(self.model.dtype)).float().cpu().numpy()
            for index, row in zip(whole, logits, strict=True):
                found[index] = row
        return found

    def reading(self, clip: Clip) -> LabelReading:
        return LabelReading(self, clip)

    def values(self, logits: Tensor) -> Values:
        if not logits.isfinite().all():
            raise FloatingPointError("the model gave numbers that are not finite")
        kind = self.model.config.problem_type
        if kind == "regression" or len(self.names) == 1:
            scores = logits
        else:
            scores = logits.sigmoid() if kind == "multi_label_classification" else logits.softmax(0)
        best = scores.sort(descending=True, stable=True)
        labels = [
            {"label": self.names[index], "score": score}
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ][: self.top_k]
        return {"label": labels[0]["label"], "label_score": labels[0]["score"], "labels": labels}


class LabelReading:
    """The mean over a clip's windows."""

    def __init__(self, head: LabelHead, clip: Clip) -> None:
        self._head = head
        self._spans = [] if clip.whole else spans(clip, head.model)
        self._clip = clip
        self._pooling = head.model.pooling()
        self._logits: Tensor | None = None
        self._next = 0

    def add(self, window: Window, outputs: Mapping[Task, Any]) -> None:
        output = outputs[Task.CLASSIFY]
        if isinstance(output, np.ndarray):
            self._logits = torch.from_numpy(output)
            return
        start, stop = self._spans[self._next]
        self._pooling.add(output[start - window.start : stop - window.start])
        self._next += 1

    def finish(self) -> Values | None:
        if not self._clip.windows:
            return None
        logits = self._pooling.finish().float().cpu() if self._logits is None else self._logits
        return self._head.values(logits)


def attended_spans(
    encoding: Encoding, pieces: Sequence[Piece], chosen: Sequence[int], *, shorter: int = 0
) -> list[tuple[int, int]]:
    """Where the attended frames of the chosen pieces lie in the pack, each `shorter` at the end."""
    offsets = encoding.last_hidden_state.offsets
    return [(offsets[index], offsets[index] + pieces[index].attended - shorter) for index in chosen]
