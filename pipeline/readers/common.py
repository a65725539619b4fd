"""What the readers share: table sizes, clip ids, relative paths, and damage told from storage failure."""

from __future__ import annotations

import gzip
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from pipeline.errors import ClipError, Code, Stage
from pipeline.schema import Clip, read_table
from pipeline.shards import Shard
from pipeline.storage import Storage, path_of, uri_of

TABLE_BYTES = 8 << 20
TABLE_ROWS = 256

_DAMAGE = (
    pa.ArrowException,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    ValueError,
    LookupError,
)


def clip_id(shard: Shard, key: object) -> str:
    return f"{shard.name}#{key}"


def resolve(shard: Shard, path: str) -> str:
    """Where `path`, as written in a shard, leads: relative paths start at the shard's directory."""
    if "://" in path or path.startswith("/"):
        return path
    # Object stores take "." and ".." literally, so they are resolved here.
    full = posixpath.normpath(posixpath.join(posixpath.dirname(path_of(shard.uri)), path))
    return uri_of(shard.uri, full)


def is_damage(problem: Exception) -> bool:
    """True when the bytes are at fault, False when storage failed to deliver them."""
    # Arrow and bz2 report damage as a bare OSError; those of storage have an errno or a class of their own.
    return isinstance(problem, _DAMAGE) or (type(problem) is OSError and problem.errno is None)


def failure(shard: Shard, storage: Storage, problem: Exception) -> ClipError:
    """The error of a shard that could not be read, or not to its end."""
    if is_damage(problem):
        return broken(f"{shard.name} is damaged: {str(problem) or type(problem).__name__}")
    return ClipError(Stage.READ, Code.UNREADABLE, storage.explain(shard.uri, problem))


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
