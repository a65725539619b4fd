"""What an annotation is: a `Task`, whose head turns encoder frames into the columns of a clip.

The files of this folder are read for every `--help`, so they import torch and w2vbert, which take seconds,
only inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipeline.features.windows import Window
from pipeline.metrics.base import Metric
from pipeline.node_files import CheckpointFiles
from pipeline.storage import Storage

if TYPE_CHECKING:
    import torch

    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.heads.task import TaskModel
    from w2vbert.model import Encoding
    from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel

Values = dict[str, Any]  # by column; what is absent is null

# Marks fields that change what is written. A run with other values never mixes into an existing output.
CHANGES_OUTPUT: dict[str, Any] = {"changes_output": True}


class NoOptions(BaseModel):
    """The options of a task that has none."""

    model_config = ConfigDict(frozen=True)


@dataclass(frozen=True)
class ClipFrames:
    """A clip as the heads see it.

    Attributes:
        frames: of the encoder, in the whole recording.
        num_valid: how many of them the audio fills.
        windows: what the encoder looks at, in order; none of silence.
        duration_s: of the decoded audio.
        passthrough: the input's columns that some task reads (`Task.reads`), where the table has them.
    """

    frames: int
    num_valid: int
    windows: tuple[Window, ...]
    duration_s: float
    passthrough: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """One window holds the clip, all of it: heads then answer for many clips at once."""
        return len(self.windows) == 1 and self.windows[0].frames == self.frames


@dataclass(frozen=True)
class PackedWindow:
    """A window in a pack, with the clip it is of."""

    clip: ClipFrames
    window: Window

    @property
    def num_valid(self) -> int:
        """How many frames of the window the audio fills."""
        return min(self.window.frames, self.clip.num_valid - self.window.start)


class Accumulator(Protocol):
    """Sums up one clip, window by window."""

    def add(self, window: Window, outputs: Mapping[str, Any]) -> None:
        """Takes the next window: the outputs of each head of the actor for it, by task."""

    def finish(self) -> Values | None:
        """The clip's columns, after its last window; None where the clip is too short for the head."""


class Head(Protocol):
    """A task's model with its options."""

    @property
    def model(self) -> Wav2Vec2BertPreTrainedModel:
        """`model.base_model` is the encoder. It is asked for the hidden states of all layers where
        `model.needs_hidden_states` exists and is true; nothing else is asked of the model."""

    def outputs(self, encoding: Encoding, windows: Sequence[PackedWindow]) -> Sequence[Any]:
        """The head's outputs for each window of a pack, small where they can be."""

    def accumulator(self, clip: ClipFrames) -> Accumulator: ...


class TaskFiles(Protocol):
    """Files that a task's options name, read once by the driver; they travel to the actors."""

    def digests(self) -> Mapping[str, str | None]:
        """By setting, what the identity of a table says about their contents."""


@dataclass(frozen=True)
class HeadParts:
    """What a head is built from.

    Attributes:
        model: of the task's class, with its weights, on the device.
        options: of the task's `options` class.
        checkpoint: configuration and vocabulary of the model.
        files: what the task's `read_files` returned; None where it has none.
        frame_s: seconds from one encoder frame to the next.
        used: the heads of `Task.uses` that the actor holds too.
    """

    model: Any
    options: Any
    checkpoint: CheckpointFiles
    files: Any
    device: torch.device
    frame_s: float
    used: Mapping[str, Head]


@dataclass(frozen=True)
class Task:
    """An annotation: everything a job has to know of it. It travels to the actors by pickle.

    Attributes:
        name: the flag of its checkpoint (`jobs/annotate.py --transcribe`), and of its job.
        does: the verb after "checkpoint that", for the help.
        about: the first line of its job's help.
        makes: what a clip can be too short for.
        model: imports and returns the model class; a bare `Wav2Vec2BertModel` will do.
        columns: (options, config) -> the columns that a checkpoint of this configuration fills.
        column_names: every column that it may ever fill: passthrough columns are renamed for them.
        head: builds the head.
        options: a pydantic class whose fields all have defaults; they become flags. Its `title` is the group
            of the help in which they stand.
        check: (checkpoint, model) -> why the task cannot use this checkpoint, or None; what it raises of
            ValueError and OSError is a reason too.
        read_files: (options, checkpoint, storage) -> the files that the options name.
        metric: (options, storage) -> what to sum up of the rows for the summary; of default options too.
        uses: tasks whose heads this one asks, where the actor holds them.
        reads: columns of the input, under the output's names, that heads find in `ClipFrames.passthrough`.
    """

    name: str
    does: str
    about: str
    makes: str
    model: Callable[[], type[Wav2Vec2BertPreTrainedModel]]
    columns: Callable[[Any, Wav2Vec2BertConfig], dict[str, pa.DataType]]
    column_names: frozenset[str]
    head: Callable[[HeadParts], Head]
    options: type[BaseModel] = NoOptions
    check: Callable[[CheckpointFiles, Any], str | None] | None = None
    read_files: Callable[[Any, CheckpointFiles, Storage], TaskFiles] | None = None
    metric: Callable[[Any, Storage], Metric] | None = None
    uses: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


def spans(clip: ClipFrames, model: TaskModel, *, keep_partial: bool = False) -> list[tuple[int, int]]:
    """Each window's part of the recording, in frames of the head: neighbours that overlap meet in the middle.

    Args:
        keep_partial: take in the last frame where the audio fills it only in part.
    """
    stride = model_stride(model)
    found = []
    for window in clip.windows:
        frames = window.frames if keep_partial else PackedWindow(clip, window).num_valid
        start = window.start // stride
        found.append((start, start + model.frame_lengths((frames,))[0]))
    for index in range(1, len(found)):
        (before, end), (start, after) = found[index - 1], found[index]
        if start < end:
            seam = (start + end) // 2
            found[index - 1], found[index] = (before, seam), (seam, after)
    return found


def model_stride(model: TaskModel) -> int:
    """Encoder frames in one frame that the head reads."""
    return 1 if model.needs_hidden_states else model.config.total_stride
