"""Packs to batches: features from the cache, augmented, and targets; threads read ahead."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.errors import JobError
from pipeline.training.batches.augment import Augmenter
from pipeline.training.batches.batch import Batch, Pack
from pipeline.training.batches.cache import FeatureCache, StoredClip
from pipeline.training.batches.seeds import clip_generator, pack_seed
from pipeline.training.examples.index import Index, Ints, Ragged
from pipeline.training.examples.labels.transcribe import needed_frames
from w2vbert.packing import Packed

_FETCHERS = 4  # of files
_PACKS_AHEAD = 1024  # whose files are fetched, long before their batches are made


class Reader:
    """Makes batches of packs: a function of the index, the table and (seed, epoch, number of the pack).

    Args:
        seed: of the run.
        augmenter: None: the stored features, as in validation.

    Attributes:
        waited_s: seconds that `stream` kept its reader waiting.

    Raises:
        JobError: clips are to be joined for another task than `transcribe`.
    """

    def __init__(
        self,
        index: Index,
        cache: FeatureCache,
        seed: int,
        augmenter: Augmenter | None = None,
    ) -> None:
        self._joining = augmenter.joining if augmenter is not None else None
        if self._joining is not None and set(index.targets) != {"transcribe"}:
            raise JobError("--concat-prob joins texts: it goes with --task transcribe alone.")
        self._index, self._cache, self._seed = index, cache, seed
        self._augmenter = augmenter
        self.waited_s = 0.0

    def batch(self, pack: Pack) -> Batch:
        """
        Raises:
            StorageError, JobError: a file of the table cannot be read, or is another than the index knows.
        """
        seed = pack_seed(self._seed, pack.epoch, pack.number)
        groups = list(self._groups(pack, seed))
        clips = [self._features(group, generator) for group, generator in groups]
        finite = [bool(np.isfinite(clip).all()) for clip in clips]
        unusable: list[str] = []
        for clip, (group, _), is_finite in zip(clips, groups, finite, strict=True):
            if not is_finite:
                clip.fill(0.0)
                unusable += self._broken(group)
        lengths = tuple(len(clip) for clip in clips)
        return Batch(
            pack,
            seed,
            clip_ids=[self._clip_id(group[0]) for group, _ in groups],
            speeds=[float(self._index.speeds[group[0]]) for group, _ in groups],
            features=Packed(torch.from_numpy(np.concatenate(clips)), lengths),
            targets={
                task: [
                    self._target(task, group) if is_finite else None
                    for (group, _), is_finite in zip(groups, finite, strict=True)
                ]
                for task in self._index.targets
            },
            unusable=unusable,
            joined=[self._clip_id(group[1]) if len(group) > 1 else None for group, _ in groups],
        )

    def stream(self, packs: Iterable[Pack], threads: int = 2) -> Iterator[Batch]:
        """The batches of packs, in their order; some are made ahead, and files fetched long before.

        Raises:
            StorageError, JobError: as `batch`.
        """
        coming, looked_at, making = iter(packs), deque[Pack](), deque[Future[Batch]]()
        makers, fetchers = ThreadPoolExecutor(threads), ThreadPoolExecutor(_FETCHERS)
        asked: set[tuple[int, int]] = set()
        try:
            while True:
                while len(looked_at) < _PACKS_AHEAD and (pack := next(coming, None)) is not None:
                    looked_at.append(pack)
                    files = {(pack.epoch, file) for file in self._index.file[pack.examples].tolist()}
                    for _, file in sorted(files - asked):
                        fetchers.submit(self._cache.file, self._index.files[file])  # a failure comes again
                    asked |= files
                while looked_at and len(making) <= threads:
                    making.append(makers.submit(self.batch, looked_at.popleft()))
                if not making:
                    return
                started = time.perf_counter()
                batch = making.popleft().result()
                self.waited_s += time.perf_counter() - started
                yield batch
        finally:
            for pool in (makers, fetchers):
                pool.shutdown(wait=False, cancel_futures=True)

    def _groups(self, pack: Pack, seed: int) -> Iterator[tuple[list[int], np.random.Generator]]:
        """The examples of each clip of the batch, and the clip's random generator."""
        examples, place = pack.examples.tolist(), 0
        while place < len(examples):
            generator = clip_generator(seed, place)
            pair = examples[place : place + 2]
            group = pair if self._joins(pair, generator) else pair[:1]
            yield group, generator
            place += len(group)

    def _joins(self, pair: Sequence[int], generator: np.random.Generator) -> bool:
        joining = self._joining
        if joining is None or generator.random() >= joining.prob or len(pair) < 2:
            return False
        frames = int(self._index.frames[pair].sum())
        tokens = self._tokens(pair)
        needed = needed_frames(Ragged(tokens, np.array((0, len(tokens)))))
        return frames <= joining.max_frames and int(needed[0]) <= frames // joining.stride

    def _features(self, group: Sequence[int], generator: np.random.Generator) -> npt.NDArray[np.float32]:
        clips = [self._stored(example) for example in group]
        if self._augmenter is None:
            return clips[0].features.astype(np.float32)
        return self._augmenter(clips, generator)

    def _broken(self, group: Sequence[int]) -> list[str]:
        """Which clips of a group make it unusable."""
        found = [example for example in group if not np.isfinite(self._stored(example).features).all()]
        return [self._clip_id(example) for example in found or group]

    def _stored(self, example: int) -> StoredClip:
        index = self._index
        uri, row = index.files[index.file[example]], int(index.row[example])
        try:
            clip = self._cache.file(uri).clip(row)
        except IndexError:
            clip = None
        if clip is None or len(clip.features) != index.frames[example]:
            raise JobError(
                f"{uri} has other features in row {row} than the run's index knows of "
                f"{self._clip_id(example)}: the feature table was made anew since. Give --overwrite, or the "
                "table that it was."
            )
        return clip

    def _clip_id(self, example: int) -> str:
        found: str = self._index.clip_ids[example].as_py()
        return found

    def _target(self, task: str, group: Sequence[int]) -> Tensor | None:
        targets, example = self._index.targets[task], group[0]
        if not targets.has[example]:
            return None
        if task == "transcribe":
            return torch.from_numpy(self._tokens(group).astype(np.int64))
        values = targets.values[example]
        if task == "diarize":
            return _activity(values, int(self._index.frames[example]))
        return torch.tensor(int(values[0]))

    def _tokens(self, group: Sequence[int]) -> Ints:
        """The tokens of joined texts."""
        texts = self._index.targets["transcribe"].values
        parts = [texts[group[0]]]
        for example in group[1:]:
            if self._joining is not None and self._joining.delimiter is not None:
                parts.append(np.array([self._joining.delimiter], np.int32))
            parts.append(texts[example])
        return np.concatenate(parts)


def _activity(triples: Ints, frames: int) -> Tensor:
    """(frames, speakers): one where a speaker speaks."""
    turns = triples.reshape(-1, 3)
    found = torch.zeros(frames, int(turns[:, 0].max(initial=-1)) + 1)
    for speaker, first, last in turns.tolist():
        found[first:last, speaker] = 1.0
    return found
