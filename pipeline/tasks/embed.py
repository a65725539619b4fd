"""x-vectors: statistics over all windows, as if computed on one sequence of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.features.windows import Window
from pipeline.tasks.base import ClipFrames, HeadParts, PackedWindow, Task, Values, model_stride, spans

if TYPE_CHECKING:
    from torch import Tensor

    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.heads import Wav2Vec2BertForXVector
    from w2vbert.model import Encoding

Vector = npt.NDArray[np.float32]


def embedding_columns(width: int) -> dict[str, pa.DataType]:
    return {"embedding": pa.list_(pa.float32(), width), "embedding_norm": pa.float32()}


class EmbeddingHead:
    """Wav2Vec2BertForXVector, with the numbers that the published class gives for each clip alone.

    Its pooling takes the length of the time-delay network's output from a formula without dilation, so where
    a layer is dilated a last frame that the audio fills only in part counts, and else it does not.
    """

    def __init__(self, parts: HeadParts) -> None:
        self.model: Wav2Vec2BertForXVector = parts.model
        self.stride = model_stride(self.model)
        undilated = sum(kernel - 1 for kernel in self.model.config.tdnn_kernel)
        self.keep_partial = self.model.context > undilated

    def outputs(self, encoding: Encoding, windows: Sequence[PackedWindow]) -> Sequence[Any]:
        """The x-vector (width,) of whole clips, None where they are too short; of other windows the projected
        frames, (n, tdnn_dim[0])."""
        projected = self.model.project(encoding)
        found: list[Any] = list(projected.split())
        counted = self.model.frame_lengths(
            [window.window.frames if self.keep_partial else window.num_valid for window in windows]
        )
        whole = [index for index, window in enumerate(windows) if window.clip.whole]
        enough = [index for index in whole if counted[index] >= self.model.minimum_frames]
        for index in whole:
            found[index] = None
        if enough:
            import torch

            from w2vbert.heads.moments import segment_mean_std

            # All clips run through the time-delay network as one; spans leave out what reads across a border.
            delayed = self.model.delay(projected.frames)
            starts = projected.offsets
            stops = [starts[index] + counted[index] - self.model.context for index in enough]
            picked = [(starts[index], stop) for index, stop in zip(enough, stops, strict=True)]
            statistics = torch.cat(segment_mean_std(delayed, picked), dim=1)
            vectors = self.model.embed(statistics.to(self.model.dtype)).embedding.float().cpu().numpy()
            for index, vector in zip(enough, vectors, strict=True):
                found[index] = vector
        return found

    def accumulator(self, clip: ClipFrames) -> EmbeddingAccumulator:
        return EmbeddingAccumulator(self, clip)

    def vector(self, frames: Tensor) -> Vector | None:
        """The x-vector of projected frames, (n, tdnn_dim[0]), laid end to end; None of too few."""
        if len(frames) < self.model.minimum_frames:
            return None
        pooling = self.model.pooling()
        pooling.add(frames)
        found: Vector = pooling.finish().embedding.float().cpu().numpy()
        return found


class EmbeddingAccumulator:
    """The statistics of a clip's windows."""

    def __init__(self, head: EmbeddingHead, clip: ClipFrames) -> None:
        self._head, self._clip = head, clip
        self._spans = [] if clip.whole else spans(clip, head.model, keep_partial=head.keep_partial)
        self._pooling = head.model.pooling()
        self._vector: Vector | None = None
        self._next = self._frames = 0

    def add(self, window: Window, outputs: Mapping[str, Any]) -> None:
        output = outputs[TASK.name]
        if self._clip.whole:
            self._vector = output
            return
        start, stop = self._spans[self._next]
        offset = window.start // self._head.stride
        self._pooling.add(output[start - offset : stop - offset])
        self._frames += stop - start
        self._next += 1

    def finish(self) -> Values | None:
        vector = self._vector
        if self._frames >= self._head.model.minimum_frames:
            vector = self._pooling.finish().embedding.float().cpu().numpy()
        if vector is None:
            return None
        norm = float(np.linalg.norm(vector))
        if not np.isfinite(vector).all() or norm == 0.0:
            raise FloatingPointError("the model gave an x-vector that is not finite, or zero")
        return {"embedding": vector / np.float32(norm), "embedding_norm": norm}


def _model() -> type[Wav2Vec2BertForXVector]:
    from w2vbert.heads import Wav2Vec2BertForXVector

    return Wav2Vec2BertForXVector


def _columns(options: Any, config: Wav2Vec2BertConfig) -> dict[str, pa.DataType]:
    return embedding_columns(config.xvector_output_dim)


TASK = Task(
    name="embed",
    does="embeds (x-vectors)",
    about="Embed the voices of a speech corpus: audio shards in, a Parquet table of x-vectors out.",
    makes="an x-vector",
    model=_model,
    columns=_columns,
    column_names=frozenset(embedding_columns(1)),
    head=EmbeddingHead,
)
