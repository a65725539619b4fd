"""The index: where each example's features lie, how long it is, and its targets. NumPy and Arrow, no features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Ragged:
    """Sequences of numbers, end to end: sequence i is `values[offsets[i] : offsets[i + 1]]`."""

    values: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    def __getitem__(self, index: int) -> Ints:
        return self.values[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Targets:
    """What each example is to be recognised as, for one task.

    Attributes:
        has: (examples,) bool: whether the example has a target for this task.
        values: transcribe: token ids. classify, embed: one index of a class. diarize: triples (speaker, first
            frame, one past the last), flat, speakers numbered from 0 within the clip.
    """

    has: npt.NDArray[np.bool_]
    values: Ragged


@dataclass(frozen=True)
class Index:
    """The examples of a run: clips with a target for at least one of its tasks.

    Attributes:
        clip_ids: (examples,) string; with several speeds a clip is several examples.
        speeds: (examples,) float32.
        files: URIs of the feature table's files.
        file, row: (examples,) which of them, and which row in it.
        frames: (examples,) at 20 ms with the published extractor.
        targets: by task.
    """

    clip_ids: pa.StringArray
    speeds: npt.NDArray[np.float32]
    files: Sequence[str]
    file: Ints
    row: Ints
    frames: Ints
    targets: Mapping[str, Targets]

    def __len__(self) -> int:
        return len(self.clip_ids)
