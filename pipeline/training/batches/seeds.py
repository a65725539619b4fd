"""Random numbers as functions of what they are for: the same on every machine and with every NumPy.

NumPy promises that of `SeedSequence` and of a bit generator's raw numbers, not of what `Generator` makes of
them (NEP 19): the order of examples takes raw numbers alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_FILES, _ORDER, _PACK, _CLIP = range(4)


def pack_seed(seed: int, epoch: int, number: int) -> int:
    """A seed of 63 bits for all that is random about a pack."""
    state = np.random.SeedSequence(seed, spawn_key=(_PACK, epoch, number)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def clip_generator(seed: int, place: int) -> np.random.Generator:
    """The random generator of a clip, by the seed of its pack and its place there."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(_CLIP, place))))


def file_keys(seed: int, count: int) -> npt.NDArray[np.uint64]:
    """(count,) numbers to sort files by."""
    return _raw(seed, (_FILES,), count)


def order_keys(seed: int, epoch: int, count: int) -> npt.NDArray[np.uint64]:
    """(count,) numbers to sort an epoch by."""
    return _raw(seed, (_ORDER, epoch), count)


def _raw(seed: int, purpose: tuple[int, ...], count: int) -> npt.NDArray[np.uint64]:
    generator = np.random.Philox(np.random.SeedSequence(seed, spawn_key=purpose))
    return np.asarray(generator.random_raw(count), np.uint64)
