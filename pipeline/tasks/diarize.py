"""Diarization: who speaks in each frame, with one identity per speaker over all windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.features.windows import Window
from pipeline.metrics.der import DiarizationErrors, References
from pipeline.node_files import CheckpointFiles
from pipeline.storage import Storage
from pipeline.tasks import embed
from pipeline.tasks.base import ClipFrames, HeadParts, PackedWindow, Task, Values
from pipeline.tasks.diarization.binarise import MAX_SPEAKERS, activity, binarise, segments
from pipeline.tasks.diarization.options import DiarizationOptions

if TYPE_CHECKING:
    from torch import Tensor

    from w2vbert.heads import Wav2Vec2BertForAudioFrameClassification
    from w2vbert.model import Encoding

Floats = npt.NDArray[np.float32]
DIARIZATION_COLUMNS: dict[str, pa.DataType] = {
    "segments": pa.list_(
        pa.struct([("speaker", pa.string()), ("start_s", pa.float32()), ("end_s", pa.float32())])
    ),
    "frame_activity": pa.list_(pa.uint8()),
}
PROBABILITY_COLUMNS: dict[str, pa.DataType] = {"frame_probabilities": pa.list_(pa.list_(pa.float32()))}


class DiarizationHead:
    """Wav2Vec2BertForAudioFrameClassification.

    An x-vector head of the same actor, if it reads every encoder frame, tells speakers apart whom no overlap
    of windows shows.
    """

    def __init__(self, parts: HeadParts) -> None:
        self.model: Wav2Vec2BertForAudioFrameClassification = parts.model
        self.options: DiarizationOptions = parts.options
        self.frame_s = parts.frame_s
        head: Any = parts.used.get(embed.TASK.name)
        self.xvector_head: embed.EmbeddingHead | None = head if head and head.stride == 1 else None

    def outputs(self, encoding: Encoding, windows: Sequence[PackedWindow]) -> Sequence[Floats]:
        """Probabilities of each window: (frames, speakers)."""
        logits = self.model.frame_logits(encoding)
        probabilities = logits.with_frames(logits.frames.float().sigmoid().cpu())
        return [window.numpy() for window in probabilities.split()]

    def accumulator(self, clip: ClipFrames) -> DiarizationAccumulator:
        return DiarizationAccumulator(self, clip)


class DiarizationAccumulator:
    """A clip's probabilities, speaker by speaker."""

    def __init__(self, head: DiarizationHead, clip: ClipFrames) -> None:
        from pipeline.tasks.diarization.stitching import ENOUGH_S, SpeakerStitcher

        self._head, self._clip = head, clip
        self._speakers = head.model.num_labels
        self._stitcher = SpeakerStitcher(self._speakers, enough=round(ENOUGH_S / head.frame_s))

    def add(self, window: Window, outputs: Mapping[str, Any]) -> None:
        probabilities: Floats = outputs[TASK.name]
        if not np.isfinite(probabilities).all():
            raise FloatingPointError("the model gave numbers that are not finite")
        vectors = None
        if self._head.xvector_head is not None and not self._clip.whole:
            vectors = self._vectors(self._head.xvector_head, probabilities, outputs[embed.TASK.name])
        self._stitcher.add(window.start, probabilities, vectors)

    def _vectors(self, head: embed.EmbeddingHead, probabilities: Floats, frames: Tensor) -> Floats:
        """(speakers, width): x-vectors of the frames in which each speaks alone; NaN of too few."""
        import torch

        active = probabilities[: len(frames)] > self._head.options.onset
        alone = active & (active.sum(axis=1, keepdims=True) == 1)
        found = np.full((self._speakers, head.model.config.xvector_output_dim), np.nan, np.float32)
        for speaker in range(self._speakers):
            chosen = torch.from_numpy(np.flatnonzero(alone[:, speaker])).to(frames.device)
            vector = head.vector(frames[chosen])
            if vector is not None:
                found[speaker] = vector
        return found

    def finish(self) -> Values:
        clip, options, frame_s = self._clip, self._head.options, self._head.frame_s
        if clip.windows:
            probabilities = self._stitcher.finish(clip.frames)
        else:
            probabilities = np.zeros((clip.frames, self._speakers), np.float32)
        active = binarise(probabilities, options, frame_s)
        found = segments(active, frame_s, clip.duration_s)
        return {
            "segments": [segment._asdict() for segment in found],
            "frame_activity": activity(active),
            "frame_probabilities": probabilities,
        }


def _model() -> type[Wav2Vec2BertForAudioFrameClassification]:
    from w2vbert.heads import Wav2Vec2BertForAudioFrameClassification

    return Wav2Vec2BertForAudioFrameClassification


def _columns(options: DiarizationOptions, config: Any) -> dict[str, pa.DataType]:
    return DIARIZATION_COLUMNS | (PROBABILITY_COLUMNS if options.frame_probabilities else {})


def _check(checkpoint: CheckpointFiles, model: Wav2Vec2BertForAudioFrameClassification) -> str | None:
    if (speakers := model.config.num_labels) <= MAX_SPEAKERS:
        return None
    return f"tells {speakers} speakers apart, the table has room for {MAX_SPEAKERS}."


def _metric(options: DiarizationOptions, storage: Storage) -> DiarizationErrors:
    rttm = options.reference_rttm
    return DiarizationErrors(References.read(storage.normalise(rttm), storage) if rttm else None)


TASK = Task(
    name="diarize",
    does="diarizes",
    about="Find who speaks when: audio shards in, a Parquet table of speaker segments and frame activity "
    "out.",
    makes="speaker segments",
    model=_model,
    options=DiarizationOptions,
    columns=_columns,
    column_names=frozenset({*DIARIZATION_COLUMNS, *PROBABILITY_COLUMNS}),
    check=_check,
    head=DiarizationHead,
    metric=_metric,
    uses=("embed",),
)
