"""What the readers share: table sizes, clip ids, relative paths, and damage told from storage failure."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.corpus.clips import Clip, read_table
from pipeline.corpus.listing import Shard
from pipeline.errors import ClipError, Code, Stage
from pipeline.storage import Storage, path_of, uri_of

TABLE_BYTES = 8 << 20
TABLE_ROWS = 256


class DeliveryError(Exception):
    """Storage failed to deliver a shard's bytes; the cause says how. Anything else is damage of the bytes."""


class ShardFile(io.RawIOBase):
    """A shard's bytes; whatever storage raises becomes a DeliveryError."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = _delivered(self._file.read, size)
        return data

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        at: int = _delivered(self._file.seek, offset, whence)
        return at

    def tell(self) -> int:
        at: int = self._file.tell()
        return at

    def size(self) -> int:
        at = self.tell()
        size = self.seek(0, io.SEEK_END)
        self.seek(at)
        return size


@contextmanager
def open_shard(shard: Shard, storage: Storage) -> Iterator[ShardFile]:
    handle = _delivered(storage.open, shard.uri)
    with handle, ShardFile(handle) as file:
        yield file


def _delivered(request: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return request(*arguments)
    except Exception as problem:  # storage libraries raise errors of their own, not only OSError
        raise DeliveryError(str(problem)) from problem


def clip_id(shard: Shard, key: object) -> str:
    return f"{shard.name}#{key}"


def resolve(shard: Shard, path: str) -> str:
    """Where `path`, as written in a shard, leads: relative paths start at the shard's directory."""
    if "://" in path or path.startswith("/"):
        return path
    # Object stores take "." and ".." literally, so they are resolved here.
    full = posixpath.normpath(posixpath.join(posixpath.dirname(path_of(shard.uri)), path))
    return uri_of(shard.uri, full)


def failure(shard: Shard, storage: Storage, problem: Exception, what: str = "") -> ClipError:
    """The error of a shard, or of `what` of it, that could not be read, or not to its end."""
    if isinstance(problem, DeliveryError):
        cause = problem.__cause__
        return ClipError(
            Stage.READ,
            Code.UNREADABLE,
            storage.explain(shard.uri, cause if isinstance(cause, Exception) else problem),
        )
    return broken(f"{shard.name}{what} is damaged: {str(problem) or type(problem).__name__}")


def broken(message: str) -> ClipError:
    return ClipError(Stage.READ, Code.BROKEN_SHARD, message)


def shard_row(shard: Shard, error: ClipError, carried: pa.Schema) -> pa.Table:
    """The row that says what is wrong with the shard as a whole: its key is empty."""
    return read_table([Clip(clip_id(shard, ""), shard.uri, error=error)], carried)


def tables(clips: Iterable[Clip], carried: pa.Schema) -> Iterator[pa.Table]:
    """Clips as tables of at most `TABLE_ROWS` rows, closed once they hold `TABLE_BYTES` of audio."""
    iterator = iter(clips)
    while batch := list(_fill(iterator)):
        yield read_table(batch, carried)


def _fill(clips: Iterator[Clip]) -> Iterator[Clip]:
    size = 0
    for clip in islice(clips, TABLE_ROWS):
        yield clip
        size += len(clip.audio or b"")
        if size >= TABLE_BYTES:
            return
