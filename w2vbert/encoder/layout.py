"""Where the sequences of a pack lie, in the index tensors that layers need.

Linear layers and norms see one long run of frames and need none of this. Convolutions must not read across
the border of two sequences, attention must not look across it: both ask the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

# Sequences share an attention call if none is shorter than this part of the longest. On GPUs launches
# dominate, so up to 20 % padding is tolerated; on CPUs padding dominates, so only equal
# lengths are grouped.
_SIMILAR_ON_CPU = 1.0
_SIMILAR_ON_GPU = 0.8


Value = TypeVar("Value")


class kept(Generic[Value]):  # noqa: N801 -- a decorator
    """A property that is computed once. That of functools locks, which torch.compile cannot follow."""

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Value:
        value = self._make(instance)
        setattr(instance, self._name, value)
        return value


class Layout:
    """Lengths and borders of packed sequences. Made once per pass; tensors are made when first asked for
    and kept.

    Attributes:
        lengths: frames of each sequence.
        num_valid: how many first frames of each sequence are valid: no frame looks at the others. Fewer than
            `lengths` only where a last frame that the audio fills in part is kept.
        places: (batch, width) bool, which places of its row each sequence takes; `None`, as is the rule: the
            first ones. Between two of its frames there may then be others that nothing looks at.
        width: places of a row of what is shown of the pass.

    Raises:
        ValueError: a sequence without a valid frame, or with more of them than frames.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        device: torch.device,
        *,
        num_valid: Sequence[int] | None = None,
        places: Tensor | None = None,
        width: int | None = None,
    ) -> None:
        self.lengths = tuple(lengths)
        self.num_valid = self.lengths if num_valid is None else tuple(num_valid)
        if num_valid is not None:
            self._check_num_valid()
        self.places = places
        self.longest = max(self.lengths) if places is None else places.shape[1]
        self.width = max(self.num_valid) if width is None else width
        self.device = device
        self.total = sum(self.lengths)
        self._offsets = tuple(accumulate(self.lengths[:-1], initial=0))
        self._gaps: dict[int, Tensor] = {}
        self._blocks: dict[int, Tensor] = {}

    def _check_num_valid(self) -> None:
        if len(self.num_valid) != len(self.lengths):
            raise ValueError(
                f"num_valid counts the frames of {len(self.num_valid)} sequences where there are "
                f"{len(self.lengths)}"
            )
        for row, (valid, length) in enumerate(zip(self.num_valid, self.lengths, strict=True)):
            if not 1 <= valid <= length:
                raise ValueError(
                    f"num_valid: sequence {row} has {length} frames, so from 1 to {length} of them can be "
                    f"valid, not {valid}"
                )

    def _per_sequence(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=self.device)

    @kept
    def rows(self) -> Tensor:
        """(total,): the sequence that each frame belongs to."""
        index = torch.arange(len(self.lengths), device=self.device)
        return index.repeat_interleave(self._per_sequence(self.lengths), output_size=self.total)

    @kept
    def ordinals(self) -> Tensor:
        """(total,): how many frames of its sequence come before each frame."""
        return torch.arange(self.total, device=self.device) - self._per_sequence(self._offsets)[self.rows]

    @kept
    def positions(self) -> Tensor:
        """(total,): the place of each frame in its row, from 0."""
        return self.ordinals if self.places is None else self.places.nonzero()[:, 1]

    @kept
    def invalid(self) -> Tensor | None:
        """(total, 1) bool: frames that are not valid; `None` if all are, which is the rule."""
        if self.num_valid == self.lengths:
            return None
        return (self.ordinals >= self._per_sequence(self.num_valid)[self.rows]).unsqueeze(1)

    def zero_invalid(self, frames: Tensor) -> Tensor:
        """(total, width) with zeros in the frames that are not valid."""
        return frames if self.invalid is None else frames.masked_fill(self.invalid, 0.0)

    def spaced(self, frames: Tensor, gap: int) -> tuple[Tensor, Tensor]:
        """Frames with silence between sequences and where a sequence leaves places out.

        Args:
            frames: (total, width).
            gap: zeros before each sequence.

        Returns:
            (longer total, width), and (total,), where each frame lies in it.
        """
        batch = len(self.lengths)
        total = self.total if self.places is None else batch * self.longest
        if gap not in self._gaps:
            if self.places is None:
                steps = torch.arange(self.total, device=self.device)
            else:
                steps = self.rows * self.longest + self.positions
            self._gaps[gap] = steps + gap * (self.rows + 1)
        silence = frames.new_zeros(total + gap * batch, frames.shape[1])
        return silence.index_copy(0, self._gaps[gap], frames), self._gaps[gap]

    def windows(self, lengths: Sequence[int], *, kernel: int, stride: int, padding: int) -> Tensor:
        """What a strided convolution reads, within each sequence.

        Args:
            lengths: output frames of each sequence.

        Returns:
            (sum(lengths), kernel): packed index of every frame read; `total` where it is beyond the
            sequence's ends.
        """
        out = Layout(lengths, self.device)
        local = out.ordinals.unsqueeze(1) * stride - padding + torch.arange(kernel, device=self.device)
        inside = (local >= 0) & (local < self._per_sequence(self.lengths)[out.rows].unsqueeze(1))
        return torch.where(
            inside, local + self._per_sequence(self._offsets)[out.rows].unsqueeze(1), self.total
        )

    def blocks(self, size: int) -> Tensor:
        """The sequences in blocks of at most `size` frames, as kernels take them, longest sequences first.

        Returns:
            (blocks, 4) int32: where the block's sequence starts in the pack, where the block starts in its
            sequence, frames of the sequence, and how many of them are valid.
        """
        if size not in self._blocks:
            sequences = zip(self._offsets, self.lengths, self.num_valid, strict=True)
            table = [
                (offset, start, length, valid)
                for offset, length, valid in sorted(sequences, key=lambda sequence: -sequence[1])
                for start in range(0, length, size)
            ]
            self._blocks[size] = torch.tensor(table, dtype=torch.int32, device=self.device)
        return self._blocks[size]

    # Attention

    @kept
    def groups(self) -> tuple[Group, ...]:
        """The sequences, those of similar length together, as attention takes them."""
        if self.places is not None:
            rows = tuple(range(len(self.lengths)))
            return (Group(rows, self.longest, self.longest, self.places[:, None, None, :]),)
        similar = _SIMILAR_ON_CPU if self.device.type == "cpu" else _SIMILAR_ON_GPU
        groups: list[list[int]] = []
        for row in sorted(range(len(self.lengths)), key=lambda row: -self.lengths[row]):
            if groups and self.lengths[row] >= similar * self.lengths[groups[-1][0]]:
                groups[-1].append(row)
            else:
                groups.append([row])
        return tuple(self._group(rows) for rows in groups)

    def _group(self, rows: Sequence[int]) -> Group:
        num_valid = [self.num_valid[row] for row in rows]
        keys = max(num_valid)
        mask = None
        if min(num_valid) < keys:
            steps = torch.arange(keys, device=self.device)
            mask = (steps < self._per_sequence(num_valid).unsqueeze(1))[:, None, None, :]
        return Group(tuple(rows), self.lengths[rows[0]], keys, mask)

    def grouped(self, packed: Tensor) -> tuple[Tensor, ...]:
        """(total, ...) -> (batch * length, ...) of each group.

        Cut once: slices taken one by one would each have a gradient as large as the whole.
        """
        joined = packed if self._order is None else packed.index_select(0, self._grouped_frames)
        parts: tuple[Tensor, ...] = joined.split([len(group.rows) * group.length for group in self.groups])
        return parts

    @kept
    def _grouped_frames(self) -> Tensor:
        """Packed index of the frames of each group, one group after another."""
        # Past its end a sequence repeats its last frame: any frame would do, for it is masked and thrown
        # away. So it is where a sequence leaves a place out.
        if self.places is not None:
            return (self.places.flatten().cumsum(0) - 1).clamp(min=0)
        return torch.cat([self._frames_of(group) for group in self.groups])

    def _frames_of(self, group: Group) -> Tensor:
        first = self._per_sequence([self._offsets[row] for row in group.rows]).unsqueeze(1)
        last = self._per_sequence([self.lengths[row] - 1 for row in group.rows]).unsqueeze(1)
        steps = torch.arange(group.length, device=self.device)
        return (first + steps.minimum(last)).flatten()

    @kept
    def _order(self) -> Tensor | None:
        """(total,): where each frame lies in the concatenation of all groups; `None` if just there."""
        if self.places is not None:
            return self.rows * self.longest + self.positions
        starts = [0] * len(self.lengths)
        start = 0
        for group in self.groups:
            for row in group.rows:
                starts[row] = start
                start += group.length
        if start == self.total and starts == list(self._offsets):
            return None
        return self._per_sequence(starts)[self.rows] + self.ordinals

    def ungroup(self, grouped: Sequence[Tensor]) -> Tensor:
        """(batch * length, ...) of each group -> (total, ...) in packed order."""
        joined = grouped[0] if len(grouped) == 1 else torch.cat(tuple(grouped))
        return joined if self._order is None else joined.index_select(0, self._order)


@dataclass(frozen=True, eq=False)
class Group:
    """Sequences of similar length that share one attention call.

    Attributes:
        rows: their numbers in the pack.
        length: frames of the longest; the others are filled up to it.
        keys: how many first frames can be looked at.
        mask: (batch, 1, 1, keys) bool, true where a key is a valid frame; `None` if all are.
    """

    rows: tuple[int, ...]
    length: int
    keys: int
    mask: Tensor | None

    def heads(self, frames: Tensor, num_heads: int) -> Tensor:
        """(batch * length, num_heads * head_size) -> (batch, num_heads, length, head_size)."""
        return frames.view(len(self.rows), self.length, num_heads, -1).transpose(1, 2)
