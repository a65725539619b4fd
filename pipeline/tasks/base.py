"""What the model actor asks of a head: to read encoded windows, and to sum up a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.features.windows import Window
from pipeline.spec import Task
from w2vbert.decoding.greedy import total_stride
from w2vbert.heads.task import TaskModel
from w2vbert.model import Encoding

Values = dict[str, Any]  # by column; what is absent is null


@dataclass(frozen=True)
class Clip:
    """A clip as the heads see it.

    Attributes:
        frames: of the encoder, in the whole recording.
        attended: how many of them the audio fills.
        windows: what the encoder looks at, in order; none of silence.
        duration_s: of the decoded audio.
        reference: the text that came with it.
    """

    frames: int
    attended: int
    windows: tuple[Window, ...]
    duration_s: float
    reference: str | None = None

    @property
    def whole(self) -> bool:
        """One window holds the clip, all of it: heads then answer for many clips at once."""
        return len(self.windows) == 1 and self.windows[0].frames == self.frames


@dataclass(frozen=True)
class Piece:
    """A window in a pack, with the clip it is of."""

    clip: Clip
    window: Window

    @property
    def attended(self) -> int:
        """How many frames of the window the audio fills."""
        return min(self.window.frames, self.clip.attended - self.window.start)


class Reading(Protocol):
    """What a head gathers of one clip, window by window."""

    def add(self, window: Window, outputs: Mapping[Task, Any]) -> None:
        """Takes the next window: what each head of the actor said of it."""

    def finish(self) -> Values | None:
        """The clip's columns, after its last window; None where the head can say nothing of the clip."""


class Head(Protocol):
    """A task's model with its options."""

    @property
    def model(self) -> TaskModel: ...

    def outputs(self, encoding: Encoding, pieces: Sequence[Piece]) -> Sequence[Any]:
        """What is to be known of each piece of a pack, small where it can be."""

    def reading(self, clip: Clip) -> Reading: ...


def spans(clip: Clip, model: TaskModel, *, half_filled: bool = False) -> list[tuple[int, int]]:
    """Each window's part of the recording, in frames of the head: neighbours that overlap meet in the middle.

    Args:
        half_filled: take in the last frame where the audio fills it only in part.
    """
    stride = model_stride(model)
    found = []
    for window in clip.windows:
        frames = window.frames if half_filled else Piece(clip, window).attended
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
    return 1 if model.needs_hidden_states else total_stride(model.config)
