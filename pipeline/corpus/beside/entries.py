"""What is told of single clips, and how clips and entries come together."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pipeline.corpus.beside.base import Beside
from pipeline.corpus.clips import Clip, Shard
from pipeline.errors import ClipError, Code, Stage
from pipeline.storage import Storage, StorageError, name_of

_SAMPLED = 64


@dataclass(frozen=True)
class Entry:
    """What is told of one clip.

    Attributes:
        key: of the clip.
        values, extra: as those of a `Clip`.
        start_s, length_s: the part of the audio that it is.
    """

    key: str
    values: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    start_s: float | None = None
    length_s: float | None = None
    error: ClipError | None = None

    def of(self, clip: Clip) -> Clip:
        """A clip with what is told of it; its own values give way."""
        values, extra = {**clip.values, **self.values}, {**clip.extra, **self.extra}
        return replace(clip, values=values, extra=extra, error=clip.error or self.error)


class OfEachClip(Beside):
    """Tells of a clip by its key; the clips are as many as they are without it."""

    def of(self, key: str, storage: Storage) -> Entry | None:
        """None where it says nothing; raises StorageError where it was not delivered."""
        raise NotImplementedError

    def key_of(self, clip: Clip, shard: Shard) -> str:
        """What a clip is called here."""
        return clip.clip_id.removeprefix(shard.clip_id(""))

    def describe(self, clips: Iterator[Clip], shard: Shard, storage: Storage) -> Iterator[Clip]:
        """Where the file is not delivered, the next run reads the clip again."""
        for clip in clips:
            try:
                entry = self.of(self.key_of(clip, shard), storage)
            except StorageError as problem:
                entry = Entry("", error=ClipError(Stage.READ, Code.UNREADABLE, str(problem)))
            yield entry.of(clip) if entry else clip


class OfAllClips(Beside):
    """Says which clips a shard has: several may be of one recording. What it tells of no recording there is
    an error row; a recording that it does not tell of is a clip."""

    def entries(self, storage: Storage) -> Iterator[tuple[str, Entry]]:
        """Each with the key of its recording in the shard; raises StorageError where not delivered."""
        raise NotImplementedError

    def samples(self, storage: Storage) -> list[dict[str, Any]]:
        first = islice(self.entries(storage), _SAMPLED)
        return [dict(entry.values) for _, entry in first if entry.error is None]

    def describe(self, clips: Iterator[Clip], shard: Shard, storage: Storage) -> Iterator[Clip]:
        told: dict[str, list[Entry]] = defaultdict(list)
        for key, entry in self.entries(storage):
            told[key].append(entry)
        taken: dict[str, int] = {}
        problem: Exception | None = None
        try:
            for clip in clips:
                key = clip.clip_id.removeprefix(shard.clip_id(""))
                entries = told.pop(key, None) or told.pop(posixpath.basename(key), [Entry(key)])
                for entry in entries:
                    identity = _identity(shard, entry.key, taken)
                    yield replace(
                        entry.of(clip), clip_id=identity, start_s=entry.start_s, length_s=entry.length_s
                    )
        except StorageError:
            raise
        except Exception as damage:  # what is told of the clips behind it is not lost
            problem = damage
        for entries in told.values():
            yield from (self._absent(entry, shard, _identity(shard, entry.key, taken)) for entry in entries)
        if problem is not None:
            raise problem

    def _absent(self, entry: Entry, shard: Shard, identity: str) -> Clip:
        message = f"{name_of(self.uri)} tells of {entry.key}, which has no audio in {shard.name}"
        error = entry.error or ClipError(Stage.READ, Code.NO_AUDIO, message)
        return Clip(identity, shard.uri, error=error, values=entry.values, extra=entry.extra)


def _identity(shard: Shard, key: str, taken: dict[str, int]) -> str:
    """The id of a clip, with "~2" where the key comes a second time."""
    taken[key] = taken.get(key, 0) + 1
    return shard.clip_id(key if taken[key] == 1 else f"{key}~{taken[key]}")
