"""A batch: one pack of examples, ready for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from w2vbert.packing import Packed


class Pack(NamedTuple):
    """Examples that run through the encoder at once: the unit of work, of masks and of random numbers.

    Attributes:
        number: in its epoch, from 0.
        examples: (n,) rows of the index.
    """

    epoch: int
    number: int
    examples: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """A pack with what the model takes.

    Attributes:
        seed: of all that is random about it; the same on every machine and after every restart.
        clip_ids, speeds: of each clip.
        features: (total_frames, width) float32.
        targets: by task a target of each clip, None where it has none. transcribe: (tokens,) int64 ids.
            classify, embed: () int64, the index of a class. diarize: (frames, speakers of the clip) float32,
            one where a speaker speaks; (frames, 0) of a clip in which nobody does.
        unusable: ids of the clips whose stored features are not finite. They are zeros without a target, so
            that neither packs nor losses of others change.
        joined: by clip, the id of another that was joined to it, if any; (): none was.
    """

    pack: Pack
    seed: int
    clip_ids: Sequence[str]
    speeds: Sequence[float]
    features: Packed
    targets: Mapping[str, Sequence[Tensor | None]]
    unusable: Sequence[str] = ()
    joined: Sequence[str | None] = ()

    @property
    def all_ids(self) -> list[str]:
        """Of every clip, those that were joined to others too."""
        return [*self.clip_ids, *filter(None, self.joined)]


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """The first clips of a batch of several, and the others."""
    middle = len(batch.clip_ids) // 2
    parts = (slice(None, middle), slice(middle, None))
    clips = batch.features.split()
    first, second = (
        replace(
            batch,
            clip_ids=batch.clip_ids[part],
            speeds=batch.speeds[part],
            features=Packed.from_sequences(clips[part]),
            joined=batch.joined[part],
            targets={task: targets[part] for task, targets in batch.targets.items()},
        )
        for part in parts
    )
    return first, second


def silence(batch: Batch) -> Batch:
    """A batch of nobody, as large as another and with its targets, whose losses are finite."""
    features = batch.features.with_frames(torch.zeros_like(batch.features.frames))
    return replace(batch, clip_ids=[""] * len(batch.clip_ids), joined=(), features=features)
