"""What a reader of a shard format is, and all that readers have in common.

A new format is a file with a subclass of `Reader` that has a name, endings and `clips`; `readers.register`
takes an instance of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, ClassVar

import pyarrow as pa

from pipeline.corpus.clips import Clip, Shard, read_table
from pipeline.corpus.columns import Passthrough, infer
from pipeline.errors import ClipError, ClipFailedError, Code, JobError, Stage
from pipeline.storage import Storage, StorageError, StorageFile

TABLE_BYTES = 8 << 20
TABLE_ROWS = 256


class DamagedShardError(Exception):
    """The bytes of a shard are not what its format asks for; the message completes "… is damaged: "."""


@dataclass(frozen=True)
class Extent:
    """How much a shard holds, as far as that is known without reading its audio.

    `clips` is None where only reading tells; `seconds` are those that the shard itself gives of
    `timed` clips.
    """

    clips: int | None = None
    seconds: float = 0.0
    timed: int = 0


class Reader:
    """Reads the shards of one format. It holds no state and travels to the workers with its shards.

    A simple reader has a name, endings and `clips`. One of loose files (`one_clip`) needs no `clips` either:
    the file is its clip's audio, and the shard is never opened here.

    Attributes:
        name: of the layout.
        endings: of the file names, lower case.
        one_clip: the shard itself is the audio of one clip, which has the stem of its name as key.
        lists_files: the shard may name audio files; such a file is no clip of its own in the same input.
        clip_bytes: about what a clip takes of a shard.
        sampled: clips at whose values `columns` looks.
        about: the format, for a person.
    """

    name: ClassVar[str]
    endings: ClassVar[tuple[str, ...]]
    one_clip: ClassVar[bool] = False
    lists_files: ClassVar[bool] = False
    clip_bytes: ClassVar[int] = 100_000
    sampled: ClassVar[int] = 8

    @property
    def about(self) -> str:
        return f"*{self.endings[0]}"

    def clips(self, file: StorageFile, shard: Shard, slice: Any) -> Iterator[Clip]:
        """The clips of the shard, or of one of its `slices` (None: all), in order, with ids of their own.

        Whatever it raises becomes an error row of the shard: a StorageError that of storage, anything else
        that of damage. The clips before it have their rows.
        """
        raise NotImplementedError

    def is_doubtful(self, name: str) -> bool:
        """Whether files of such a name may be something else, so that `is_one` is to be asked."""
        return False

    def is_one(self, shard: Shard, storage: Storage) -> bool:
        """Whether a file of a doubtful name is of the format; StorageError where that cannot be told."""
        return True

    def sources(self, shard: Shard, storage: Storage, wanted: Callable[[str], bool]) -> Iterator[str]:
        """Those places of audio that the shard names (`lists_files`) which are wanted.

        Raises:
            StorageError: storage did not deliver the shard, or not all of it.
        """
        for clip in self.delivered(shard, storage):
            places = [clip.source] if clip.source is not None else clip.load.places if clip.load else []
            yield from filter(wanted, places)

    def slices(self, shard: Shard, storage: Storage) -> list[Any]:
        """What tasks read side by side of a large shard, picklable; none: the shard is read whole.

        A shard that cannot be read has none: reading it says why.
        """
        return []

    def slices_with(self, shard: Shard, storage: Storage, clip_ids: Collection[str]) -> list[Any]:
        """Those in which these clips are, or may be where only reading tells; [None] is the whole shard."""
        return self.slices(shard, storage) or [None]

    def columns(self, shard: Shard, storage: Storage) -> pa.Schema:
        """The shard's own columns beside the audio, under the input's names; none where it is damaged.

        Raises:
            JobError: the shard is sound, and of no use.
            StorageError: it was not delivered.
        """
        told = shard.beside.samples(storage) if shard.beside else []
        return infer([*self.samples(shard, storage), *told])

    def samples(self, shard: Shard, storage: Storage) -> list[dict[str, Any]]:
        """The values of the first clips; raises StorageError where they were not delivered."""
        return [dict(clip.values) for clip in islice(self.delivered(shard, storage), self.sampled)]

    def delivered(self, shard: Shard, storage: Storage, slice: Any = None) -> Iterator[Clip]:
        """The clips up to the first damage; none of a shard that is gone.

        Raises:
            StorageError: storage does not deliver them.
        """
        problems: list[Exception] = []
        yield from self._clips(shard, storage, slice, problems)
        for problem in problems:
            if isinstance(problem, StorageError) and problem.not_delivered:
                raise problem

    def extent(self, shard: Shard, storage: Storage) -> Extent:
        """What `--plan` can say of the shard."""
        return Extent(clips=1 if self.one_clip else None)

    def tables(
        self, shard: Shard, storage: Storage, passthrough: Passthrough, slice: Any = None
    ) -> Iterator[pa.Table]:
        """The clips as tables of `read_schema`, and a row for the shard as a whole where it is damaged."""
        problems: list[Exception] = []
        clips = (_loaded(clip, storage) for clip in self._clips(shard, storage, slice, problems))
        yield from tables(clips, passthrough)
        for problem in problems:
            yield shard_row(shard, shard_error(shard, problem), passthrough)

    def _clips(self, shard: Shard, storage: Storage, slice: Any, problems: list[Exception]) -> Iterator[Clip]:
        """The clips up to the first problem, which is left in `problems`."""
        try:
            if self.one_clip:
                yield from _described(iter([loose_clip(shard)]), shard, storage)
                return
            with storage.open(shard.uri) as file:
                yield from _described(self.clips(file, shard, slice), shard, storage)
        except Exception as problem:  # decoders of damaged bytes raise what they like
            problems.append(problem)


def loose_clip(shard: Shard) -> Clip:
    """A loose audio file is a shard of one clip, with the stem of its name as key."""
    error = ClipError(Stage.READ, Code.EMPTY, f"{shard.name} has no bytes") if shard.size == 0 else None
    return Clip(shard.clip_id(PurePosixPath(shard.name).stem), shard.uri, source=shard.uri, error=error)


def _described(clips: Iterator[Clip], shard: Shard, storage: Storage) -> Iterator[Clip]:
    return clips if shard.beside is None else shard.beside.describe(clips, shard, storage)


def _loaded(clip: Clip, storage: Storage) -> Clip:
    if clip.load is None:
        return clip
    try:
        return replace(clip, audio=clip.load.make(storage))
    except ClipFailedError as failed:
        return replace(clip, error=failed.error)
    except StorageError as problem:
        code = Code.NOT_FOUND if problem.missing else Code.UNREADABLE
        code = Code.NOT_A_FILE if problem.refused else code
        return replace(clip, error=ClipError(Stage.READ, code, str(problem)))
    except Exception as problem:  # libraries raise what they like
        message = f"its audio cannot be made: {type(problem).__name__}: {problem}"
        return replace(clip, error=ClipError(Stage.DECODE, Code.UNDECODABLE, message))


def shard_error(shard: Shard, problem: Exception, what: str = "") -> ClipError:
    """The error of a shard, or of `what` of it, that could not be read, or not to its end."""
    if isinstance(problem, ClipFailedError):
        return problem.error
    if isinstance(problem, StorageError):
        return ClipError(Stage.READ, Code.UNDELIVERED, str(problem))
    if isinstance(problem, JobError):
        return ClipError(Stage.READ, Code.UNREADABLE, str(problem))
    return broken(f"{shard.name}{what} is damaged: {str(problem) or type(problem).__name__}")


def broken(message: str) -> ClipError:
    return ClipError(Stage.READ, Code.BROKEN_SHARD, message)


def shard_row(shard: Shard, error: ClipError, passthrough: Passthrough) -> pa.Table:
    """The row that says what is wrong with the shard as a whole: its key is empty."""
    return read_table([Clip(shard.clip_id(""), shard.uri, error=error)], passthrough)


def tables(clips: Iterable[Clip], passthrough: Passthrough) -> Iterator[pa.Table]:
    """Clips as tables of at most `TABLE_ROWS` rows and `TABLE_BYTES` of audio; a larger clip has its own."""
    for batch in _batches(clips):
        yield read_table(batch, passthrough)
        batch.clear()  # else its audio stays in memory beside that of the next


def _batches(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    batch: list[Clip] = []
    size = 0
    for clip in clips:
        more = len(clip.audio or b"")
        if batch and size + more > TABLE_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(clip)
        size += more
        del clip
        if size >= TABLE_BYTES or len(batch) == TABLE_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
