"""How many frames a model makes of a clip, by its configuration alone."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from pipeline.training.examples.index import Ints

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig


def output_frames(config: Wav2Vec2BertConfig, frames: Ints) -> Ints:
    """Frames after the adapter, if there is one, of clips of these many frames: (clips,); 0 of a clip that is
    too short for it."""
    lengths, of_clip = np.unique(frames, return_inverse=True)
    return np.array([_output(config, length) for length in lengths.tolist()], np.int32)[of_clip]


def minimum_frames(config: Wav2Vec2BertConfig) -> int:
    """Frames of the shortest clip that the encoder takes."""
    return next(frames for frames in count(1) if _output(config, frames))


def xvector_frames(config: Wav2Vec2BertConfig) -> int:
    """Frames of the shortest clip of which the x-vector head takes mean and deviation, as it reads them."""
    layers = zip(config.tdnn_kernel, config.tdnn_dilation, strict=True)
    return 2 + sum(dilation * (kernel - 1) for kernel, dilation in layers)


def _output(config: Wav2Vec2BertConfig, frames: int) -> int:
    from w2vbert.encoder.adapter import ClipTooShortError, adapter_lengths

    lengths: tuple[int, ...] = (frames,)
    try:
        for _ in range(config.num_adapter_layers if config.add_adapter else 0):
            lengths = adapter_lengths(config, lengths)
    except ClipTooShortError:
        return 0
    return lengths[0]
