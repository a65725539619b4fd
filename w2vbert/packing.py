"""Sequences laid end to end, so that nothing is ever computed on padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


class MaskError(ValueError):
    """An attention mask that does not mark the first frames of each row, and at least one of them."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Sequences laid end to end without padding.

    Attributes:
        frames: (total_frames, ...), the sequences one after another; usually (total_frames, width).
        lengths: frames of each sequence, at least one each.
    """

    frames: Tensor
    lengths: tuple[int, ...]

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
        return Packed(frames, self.lengths)

    def pad(self, value: float = 0.0, *, length: int | None = None) -> Tensor:
        """(batch, length, ...): sequences below each other, `value` after the end of the shorter ones.

        Args:
            length: frames per row; those of the longest sequence when omitted.
        """
        batch, length = len(self.lengths), self._row_length(length)
        tail = self.frames.shape[1:]
        if batch * length == len(self.frames):
            return self.frames.view(batch, length, *tail)
        padded = self.frames.new_full((batch * length, *tail), value)
        return padded.index_copy(0, self._places(length), self.frames).view(batch, length, *tail)

    def mask(self, *, length: int | None = None) -> Tensor:
        """(batch, length) bool: true where `pad` puts a frame."""
        lengths = torch.tensor(self.lengths, device=self.frames.device)
        return torch.arange(self._row_length(length), device=self.frames.device) < lengths[:, None]

    def _row_length(self, length: int | None) -> int:
        longest = max(self.lengths)
        if length is None:
            return longest
        if length < longest:
            raise ValueError(f"rows of {length} frames cannot hold a sequence of {longest}")
        return length

    def _places(self, length: int) -> Tensor:
        """(total_frames,): row of each frame among the batch * length rows of the padded batch."""
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
            mask: (batch, max_length) of any dtype, non-zero on the frames of a row, which come first.
                `None`: no padding.

        Raises:
            MaskError: the mask has another shape, holes, padding on the left, or a row without frames.
        """
        batch, longest = padded.shape[:2]
        if mask is None:
            return cls(padded.flatten(0, 1), (longest,) * batch)
        lengths = lengths_of_mask(mask, shape=(batch, longest))
        if min(lengths) == longest:
            return cls(padded.flatten(0, 1), lengths)
        return cls(padded[mask != 0], lengths)


def lengths_of_mask(mask: Tensor, *, shape: tuple[int, int] | None = None) -> tuple[int, ...]:
    """Frames of each row of an attention mask.

    Args:
        mask: (batch, max_length) of any dtype; non-zero on the frames of a row, which come first.
        shape: what `mask` should measure, if known.

    Raises:
        MaskError: as `Packed.from_padded`.
    """
    if mask.dim() != 2 or (shape is not None and tuple(mask.shape) != shape):
        expected = (
            "two dimensions (batch, frames)" if shape is None else f"shape {shape} as the features have"
        )
        raise MaskError(f"attention_mask must have {expected}, has shape {tuple(mask.shape)}")
    valid = mask != 0
    counts = valid.sum(1)
    prefix = torch.arange(mask.shape[1], device=mask.device) < counts[:, None]
    whole = (valid == prefix).all(1)
    lengths, sound = torch.stack((counts, whole.long())).tolist()
    for row, (length, row_is_sound) in enumerate(zip(lengths, sound, strict=True)):
        if length == 0:
            raise MaskError(f"attention_mask: row {row} marks no frame; leave the clip out of the batch")
        if not row_is_sound:
            raise MaskError(
                f"attention_mask: row {row} marks {length} frames, but not the first {length}; "
                "frames come first, padding after them, and there are no holes"
            )
    return tuple(lengths)
