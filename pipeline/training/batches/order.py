"""The order of examples: packs under a budget, as a function of (seed, epoch). NumPy only."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

from pipeline.training.batches.batch import Pack
from pipeline.training.batches.seeds import file_keys, order_keys
from pipeline.training.examples.index import Ints

Places = npt.NDArray[np.int64]
LONG_FRAMES = 1500  # a clip of so many (30 s) is taken to cost as much for attention as for all else


def costs(frames: Ints) -> Places:
    """What clips cost, times `LONG_FRAMES` to be whole: frames * (1 + frames / LONG_FRAMES)."""
    long = frames.astype(np.int64)
    return long * (LONG_FRAMES + long)


class Order:
    """Which examples run through the encoder together, and when.

    Examples of like length are a group. Each epoch shuffles every group, lays the groups end to end, cuts
    them into packs, and shuffles the packs. For the cuts an example is as long as the longest of its group:
    so they are the same in every epoch, and every epoch has the same number of packs.

    With windows the files are dealt out, once for the run, into windows of about `window_frames`. A pack
    stays within a window, and the windows, shuffled, come one after another: an epoch reads each file once.

    Args:
        frames, file: (examples,) of the index.
        budget: frames of a pack; a clip of n counts n * (1 + n / LONG_FRAMES). A clip that counts more is a
            pack by itself.
        window_frames: None: one window, a full shuffle.
    """

    def __init__(
        self, frames: Ints, file: Ints, budget: int, seed: int, window_frames: int | None = None
    ) -> None:
        self.budget, self.window_frames = budget, window_frames
        window = _windows(frames, file, seed, window_frames)
        group = window << 32 | _lengths_alike(frames)
        self._seed, self._frames = seed, frames
        self._examples: Places = np.argsort(group, kind="stable")
        self._group: Places = group[self._examples]
        self._bounds = _cut(frames[self._examples], self._group, budget * LONG_FRAMES)
        self._window_of_pack: Places = self._group[self._bounds[:-1]] >> 32
        self._latest: Packs | None = None

    def __len__(self) -> int:
        """How many packs an epoch has."""
        return len(self._bounds) - 1

    def packs(self, epoch: int) -> Packs:
        """The packs of an epoch; each example is in one of them."""
        if self._latest is None or self._latest.epoch != epoch:
            examples, packs, windows = len(self._examples), len(self), self._windows
            keys = order_keys(self._seed, epoch, examples + packs + windows)
            of_examples, of_packs, of_windows = np.split(keys, (examples, examples + packs))
            shuffled = self._examples[np.lexsort((of_examples, self._group))]
            turns = np.lexsort((of_packs, of_windows[self._window_of_pack]))
            self._latest = Packs(epoch, shuffled, self._bounds, turns)
        return self._latest

    def dearest(self, epoch: int) -> Pack:
        """The pack of an epoch that costs the most: where it fits memory, the others do."""
        packs = self.packs(epoch)
        cost = np.add.reduceat(costs(self._frames[packs.examples]), self._bounds[:-1])
        return packs[int(np.argmax(cost[packs.turns]))]

    def steps(self, packs_per_step: int) -> Steps:
        """The packs step by step."""
        return Steps(self, packs_per_step)

    @property
    def _windows(self) -> int:
        return int(self._group[-1] >> 32) + 1 if len(self._group) else 0


@dataclass(frozen=True, eq=False)
class Packs(Sequence[Pack]):
    """The packs of an epoch by their numbers.

    Attributes:
        examples: (examples,) rows of the index.
        bounds: (packs + 1,) where packs begin and end in `examples`.
        turns: (packs,) which pair of bounds each number has.
    """

    epoch: int
    examples: Places
    bounds: Places
    turns: Places

    def __len__(self) -> int:
        return len(self.turns)

    @overload
    def __getitem__(self, number: int) -> Pack: ...

    @overload
    def __getitem__(self, number: slice) -> list[Pack]: ...

    def __getitem__(self, number: int | slice) -> Pack | list[Pack]:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        number = range(len(self))[number]
        start, stop = self.bounds[self.turns[number] : self.turns[number] + 2]
        return Pack(self.epoch, number, self.examples[start:stop])


@dataclass(frozen=True)
class Steps:
    """Steps, from 0, of `packs_per_step` packs; the last one of an epoch may have fewer."""

    order: Order
    packs_per_step: int

    @property
    def per_epoch(self) -> int:
        return -(-len(self.order) // self.packs_per_step)

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that a step belongs to."""
        return step // self.per_epoch

    def __getitem__(self, step: int) -> list[Pack]:
        """The packs of a step."""
        epoch, within = divmod(step, self.per_epoch)
        first = within * self.packs_per_step
        return self.order.packs(epoch)[first : first + self.packs_per_step]


def _windows(frames: Ints, file: Ints, seed: int, window_frames: int | None) -> Places:
    """(examples,) the window of each: files in random order, until a window has its frames."""
    if window_frames is None or not len(file):
        return np.zeros(len(file), np.int64)
    held = np.bincount(file, frames).astype(np.int64)  # exact below 2 ** 53
    window_of_file = np.zeros(len(held), np.int64)
    window, filled = 0, 0
    for number in np.argsort(file_keys(seed, len(held)), kind="stable").tolist():
        if filled and filled + held[number] > window_frames:
            window, filled = window + 1, 0
        window_of_file[number] = window
        filled += int(held[number])
    return window_of_file[file]


def _lengths_alike(frames: Ints) -> Places:
    """(examples,) a number for lengths of which the longest is a tenth longer than the shortest, or less.

    In whole numbers: a logarithm may round otherwise on another machine.
    """
    starts, longest = [1], int(frames.max(initial=1))
    while starts[-1] <= longest:
        starts.append(max(starts[-1] + 1, starts[-1] * 11 // 10))
    return np.searchsorted(np.array(starts), frames, side="right").astype(np.int64)


def _cut(frames: Ints, group: Places, budget: int) -> Places:
    """Where packs begin in examples sorted by group, and where the last ends: each takes what fits."""
    if not len(frames):
        return np.zeros(1, np.int64)
    edges = np.flatnonzero(np.diff(group, prepend=group[0] - 1, append=group[-1] + 1))
    longest = np.maximum.reduceat(frames, edges[:-1])
    ends = np.cumsum(np.repeat(costs(longest), np.diff(edges))).tolist()
    windows = np.flatnonzero(np.diff(group >> 32)) + 1
    bounds = [0]
    for _, end in pairwise([0, *windows.tolist(), len(frames)]):
        while (start := bounds[-1]) < end:
            spent = ends[start - 1] if start else 0
            bounds.append(max(start + 1, bisect_right(ends, spent + budget, start, end)))
    return np.array(bounds, np.int64)
