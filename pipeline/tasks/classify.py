"""Labels: class scores of the mean over all windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from pipeline.features.windows import Window
from pipeline.tasks.base import CHANGES_OUTPUT, ClipFrames, HeadParts, PackedWindow, Task, Values, spans

if TYPE_CHECKING:
    from torch import Tensor

    from w2vbert.heads import Wav2Vec2BertForSequenceClassification
    from w2vbert.model import Encoding

LABEL_COLUMNS: dict[str, pa.DataType] = {
    "label": pa.string(),
    "label_score": pa.float32(),
    "labels": pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())])),
}


class LabelOptions(BaseModel):
    """How class scores become labels."""

    model_config = ConfigDict(frozen=True, title="classification")

    top_k: int = Field(
        5, ge=1, description="number of top-scoring labels per clip", json_schema_extra=CHANGES_OUTPUT
    )


class LabelHead:
    """Wav2Vec2BertForSequenceClassification: scores are probabilities, by softmax or, where labels do not
    exclude each other (`multi_label_classification`), by sigmoid; of a regression they are its values."""

    def __init__(self, parts: HeadParts) -> None:
        self.model: Wav2Vec2BertForSequenceClassification = parts.model
        self.top_k: int = parts.options.top_k
        self.names = [name for _, name in sorted((self.model.config.id2label or {}).items())]

    def outputs(self, encoding: Encoding, windows: Sequence[PackedWindow]) -> Sequence[Any]:
        """Logits (labels,) of whole clips; of other windows the projected frames, (n, projection)."""
        from w2vbert.heads.moments import segment_mean_std

        projected = self.model.project(encoding)
        found: list[Any] = list(projected.split())
        whole = [index for index, window in enumerate(windows) if window.clip.whole]
        if whole:
            offsets = encoding.last_hidden_state.offsets
            valid = [(offsets[index], offsets[index] + windows[index].num_valid) for index in whole]
            means, _ = segment_mean_std(projected.frames, valid)
            logits = self.model.classifier(means.to(self.model.dtype)).float().cpu().numpy()
            for index, row in zip(whole, logits, strict=True):
                found[index] = row
        return found

    def accumulator(self, clip: ClipFrames) -> LabelAccumulator:
        return LabelAccumulator(self, clip)

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


class LabelAccumulator:
    """The mean over a clip's windows."""

    def __init__(self, head: LabelHead, clip: ClipFrames) -> None:
        self._head = head
        self._spans = [] if clip.whole else spans(clip, head.model)
        self._clip = clip
        self._pooling = head.model.pooling()
        self._logits: Tensor | None = None
        self._next = 0

    def add(self, window: Window, outputs: Mapping[str, Any]) -> None:
        output = outputs[TASK.name]
        if isinstance(output, np.ndarray):
            import torch

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


def _model() -> type[Wav2Vec2BertForSequenceClassification]:
    from w2vbert.heads import Wav2Vec2BertForSequenceClassification

    return Wav2Vec2BertForSequenceClassification


def _columns(options: LabelOptions, config: Any) -> dict[str, pa.DataType]:
    return LABEL_COLUMNS


TASK = Task(
    name="classify",
    does="classifies",
    about="Label the clips of a speech corpus: audio shards in, a Parquet table of labels with scores out.",
    makes="labels",
    model=_model,
    options=LabelOptions,
    columns=_columns,
    column_names=frozenset(LABEL_COLUMNS),
    head=LabelHead,
)
