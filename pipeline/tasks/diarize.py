"""Diarization: who speaks in each frame, with one identity per speaker over all windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.features.windows import Window
from pipeline.spec import DiarizationOptions, Task
from pipeline.tasks.base import Clip, Piece, Values
from pipeline.tasks.diarization.binarise import activity, binarise, segments
from pipeline.tasks.diarization.stitching import SpeakerStitcher
from pipeline.tasks.embed import EmbeddingHead
from w2vbert.heads import Wav2Vec2BertForAudioFrameClassification
from w2vbert.model import Encoding

Floats = npt.NDArray[np.float32]


class DiarizationHead:
    """Wav2Vec2BertForAudioFrameClassification.

    `voices`, an x-vector head of the same actor, tells speakers apart whom no overlap of windows shows.
    """

    def __init__(
        self,
        model: Wav2Vec2BertForAudioFrameClassification,
        options: DiarizationOptions,
        frame_s: float,
    ) -> None:
        self.model = model
        self.options = options
        self.frame_s = frame_s
        self.voices: EmbeddingHead | None = None

    def outputs(self, encoding: Encoding, pieces: Sequence[Piece]) -> Sequence[Floats]:
        """Probabilities of each window: (frames, speakers)."""
        logits = self.model.frame_logits(encoding)
        probabilities = logits.with_frames(logits.frames.float().sigmoid().cpu())
        return [window.numpy() for window in probabilities.split()]

    def reading(self, clip: Clip) -> DiarizationReading:
        return DiarizationReading(self, clip)


class DiarizationReading:
    """A clip's probabilities, speaker by speaker."""

    def __init__(self, head: DiarizationHead, clip: Clip) -> None:
        self._head, self._clip = head, clip
        self._speakers = head.model.num_labels
        self._stitcher = SpeakerStitcher(self._speakers)

    def add(self, window: Window, outputs: Mapping[Task, Any]) -> None:
        probabilities: Floats = outputs[Task.DIARIZE]
        if not np.isfinite(probabilities).all():
            raise FloatingPointError("the model gave numbers that are not finite")
        voices = None
        if self._head.voices is not None and not self._clip.whole:
            voices = self._voices(probabilities, outputs[Task.EMBED])
        self._stitcher.add(window.start, probabilities, voices)

    def _voices(self, probabilities: Floats, frames: torch.Tensor) -> Floats | None:
        """(speakers, width): x-vectors of the frames in which each speaks alone; NaN of too few."""
        assert self._head.voices is not None
        active = probabilities[: len(frames)] > self._head.options.onset
        alone = active & (active.sum(axis=1, keepdims=True) == 1)
        width = self._head.voices.model.config.xvector_output_dim
        found = np.full((self._speakers, width), np.nan, np.float32)
        for speaker in range(self._speakers):
            chosen = torch.from_numpy(np.flatnonzero(alone[:, speaker])).to(frames.device)
            vector = self._head.voices.vector(frames[chosen])
            if vector is not None:
                found[speaker] = vector
        return found

    def finish(self) -> Values:
        clip, options = self._clip, self._head.options
        if clip.windows:
            probabilities = self._stitcher.finish(clip.frames)
        else:
            probabilities = np.zeros((clip.frames, self._speakers), np.float32)
        active = binarise(probabilities, options, self._head.frame_s)
        found = segments(active, self._head.frame_s, clip.duration_s)
        return {
            "segments": [segment._asdict() for segment in found],
            "frame_activity": activity(active),
            "frame_probabilities": probabilities,
        }
