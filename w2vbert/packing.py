"""Sequences laid end to end, so that nothing is ever computed on padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor


class MaskError(ValueError):
    """An attention mask of another shape than the batch, or with a row that marks no frame."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Sequences laid end to end without padding.

    Attributes:
        frames: (total_frames, ...), the sequences one after another; usually (total_frames, width).
        lengths: frames of each sequence, at least one each.
        width: frames per row of the padded batch that they were packed from, if there was one.
        places: (batch, width) bool, which frames of a row these are; `None`: the first ones, as is the rule.
        rows: (batch, width, ...), the padded batch that `frames` were read from, see `through_rows`.
    """

    frames: Tensor
    lengths: tuple[int, ...]
    width: int | None = None
    places: Tensor | None = None
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        if sum(self.lengths) != len(self.frames):
            raise ValueError(
                f"lengths add up to {sum(self.lengths)}, but there are {len(self.frames)} frames"
            )
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(
                f"a pack holds at least one sequence of at least one frame, got lengths {self.lengths}"
            )

    @property
    def offsets(self) -> tuple[int, ...]:
        """First frame of each sequence, and the end of the last: one more than there are sequences."""
        return tuple(accumulate(self.lengths, initial=0))

    def split(self) -> tuple[Tensor, ...]:
        """Each sequence by itself, as views: (length, ...)."""
        return self.frames.split_with_sizes(self.lengths)

    def with_frames(self, frames: Tensor) -> Packed:
        """Other frames in the same order, of the same lengths."""
        return replace(self, frames=frames, rows=None)

    def through_rows(self) -> Packed:
        """The same frames, read from a padded batch of `width` that `pad` then returns.

        A gradient on its way to `frames` passes through that batch, so that a caller who is shown it can
        keep the gradient (`retain_grad`).
        """
        rows = self.pad(length=self.width)
        return replace(self.of(rows), rows=rows)

    def of(self, padded: Tensor) -> Packed:
        """The frames at the same places of another padded batch: (batch, at least the longest, ...)."""
        frames = padded.flatten(0, 1)
        if len(frames) > len(self.frames):
            frames = frames.index_select(0, self._places(padded.shape[1]))
        return self.with_frames(frames)

    def pad(self, value: float = 0.0, *, length: int | None = None) -> Tensor:
        """(batch, length, ...): sequences below each other, `value` after the end of the shorter ones.

        Args:
            length: frames per row; those of the longest sequence when omitted.
        """
        batch, length = len(self.lengths), self._row_length(length)
        if self.rows is not None and self.rows.shape[1] == length and value == 0.0:
            return self.rows
        tail = self.frames.shape[1:]
        if batch * length == len(self.frames):
            return self.frames.view(batch, length, *tail)
        padded = self.frames.new_full((batch * length, *tail), value)
        return padded.index_copy(0, self._places(length), self.frames).view(batch, length, *tail)

    def mask(self, *, length: int | None = None) -> Tensor:
        """(batch, length) bool: true where `pad` puts a frame."""
        if self.places is not None:
            return F.pad(self.places, (0, self._row_length(length) - self.places.shape[1]))
        lengths = torch.tensor(self.lengths, device=self.frames.device)
        return torch.arange(self._row_length(length), device=self.frames.device) < lengths[:, None]

    def _row_length(self, length: int | None) -> int:
        longest = max(self.lengths) if self.places is None else self.places.shape[1]
        if length is None:
            return longest
        if length < longest:
            raise ValueError(f"rows of {length} frames cannot hold a sequence of {longest}")
        return length

    def _places(self, length: int) -> Tensor:
        """(total_frames,): row of each frame among the batch * length rows of the padded batch."""
        if self.places is not None:
            return self.mask(length=length).flatten().nonzero().squeeze(1)
        shifts = torch.tensor([row * length - start for row, start in enumerate(self.offsets[:-1])])
        steps = shifts.repeat_interleave(torch.tensor(self.lengths))
        return (steps + torch.arange(len(self.frames))).to(self.frames.device, non_blocking=True)

    @classmethod
    def from_sequences(cls, sequences: Sequence[Tensor]) -> Packed:
        """Pack sequences of shape (length, ...)."""
        return cls(torch.cat(tuple(sequences)), tuple(len(sequence) for sequence in sequences))

    @classmethod
    def from_padded(cls, padded: Tensor, mask: Tensor | None = None) -> Packed:
        """Pack a padded batch.

        Args:
            padded: (batch, max_length, ...).
            mask: (batch, max_length) of any dtype, non-zero on the frames of a row, which usually come
                first. `None`: no padding.

        Raises:
            MaskError: the mask has another shape, or a row without frames.
            RuntimeError: there is a mask while a graph is exported or traced.
        """
        batch, width = padded.shape[:2]
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            batch, width = int(batch), int(width)
        if mask is None:
            return cls(padded.flatten(0, 1), (width,) * batch, width)
        lengths, first = _read_mask(mask, shape=(batch, width))
        if min(lengths) == width:
            return cls(padded.flatten(0, 1), lengths, width)
        return cls(padded[mask != 0], lengths, width, None if first else mask != 0)


def _read_mask(mask: Tensor, *, shape: tuple[int, int]) -> tuple[tuple[int, ...], bool]:
    """Frames of each row of an attention mask, and whether they are the first of every row."""
    if torch.jit.is_tracing() or torch.compiler.is_exporting():  # type: ignore[attr-defined]
        raise RuntimeError(
            "a mask decides shapes inside the model, so a graph takes none: trace or export a clip, or clips "
            "of one length, without attention_mask"
        )
    if tuple(mask.shape) != shape:
        raise MaskError(
            f"attention_mask must have shape {shape} as the features have, has shape {tuple(mask.shape)}"
        )
    valid = mask != 0
    counts = valid.sum(1)
    prefix = torch.arange(mask.shape[1], device=mask.device) < counts[:, None]
    lengths, first = torch.stack((counts, (valid == prefix).all(1).long())).tolist()
    if 0 in lengths:
        raise MaskError(
            f"attention_mask: row {lengths.index(0)} marks no frame; leave the clip out of the batch"
        )
    return tuple(lengths), all(first)
