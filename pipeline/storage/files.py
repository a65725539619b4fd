"""An open file, a listed file, and the one error that storage raises, for a caller and for a person."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import JobError


class StorageError(OSError):
    """Storage refused or failed; the message says why in a person's words, without credentials.

    `missing`: there is nothing at that place.
    """

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


@contextmanager
def place_errors(flag: str, place: str) -> Iterator[None]:
    """Turns what storage says about a place (no such bucket, no right to write) into a JobError.

    Args:
        flag: that names the place.
        place: as the user gave it. Where nothing is there it is named, not a file of ours inside it.
    """
    try:
        yield
    except StorageError as problem:
        said = f"{place} does not exist" if problem.missing else str(problem)
        raise JobError(f"{flag} {said}.") from problem


class StorageFile(io.RawIOBase):
    """An open file. Whatever storage raises while it is read or written is a StorageError."""

    def __init__(self, file: Any, error: Callable[[Exception], StorageError]) -> None:
        self._file = file
        self._error = error

    @property
    def size(self) -> int | None:
        """In bytes; None where storage does not say."""
        size = getattr(self._file, "size", None)
        return None if size is None else int(size)

    def readable(self) -> bool:
        return bool(self._file.readable())

    def writable(self) -> bool:
        return bool(self._file.writable())

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            data: bytes = self._file.read(-1 if size is None else size)
        except Exception as problem:
            raise self._error(problem) from problem
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any, /) -> int:
        try:
            written: int = self._file.write(data)
        except Exception as problem:
            raise self._error(problem) from problem
        return written

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            at: int = self._file.seek(offset, whence)
        except Exception as problem:
            raise self._error(problem) from problem
        return at

    def tell(self) -> int:
        at: int = self._file.tell()
        return at

    def sync(self) -> None:
        """Sees that what was written to a local file is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Gives up a file that waits for its commit: not even the end of this object writes any of it."""
        with suppress(Exception):  # why it is given up is what matters
            self._file.discard()
        super().close()

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._file.close()
        except Exception as problem:
            raise self._error(problem) from problem
        finally:
            super().close()


@dataclass(frozen=True)
class FileInfo:
    """A file as a listing tells of it.

    `version` changes when the file does (ETag, or size and modification time). `modified` is that time in
    seconds since 1970 (UTC); None where storage tells none.
    """

    uri: str
    size: int
    version: str
    modified: float | None


def file_info(uri: str, info: Mapping[str, Any]) -> FileInfo:
    """From what fsspec tells; its filesystems have names of their own for tags and times."""
    size = int(info.get("size") or 0)
    tag = info.get("ETag") or info.get("etag")
    changed = info.get("mtime") or info.get("LastModified") or info.get("last_modified")
    version = str(tag).strip('"') if tag else f"{size}-{changed or ''}"
    return FileInfo(uri, size, version, _seconds(changed))


def _seconds(changed: Any) -> float | None:
    """Filesystems tell times as seconds, as `datetime` or as ISO 8601; without a zone they mean UTC."""
    if isinstance(changed, str):
        try:
            changed = datetime.fromisoformat(changed)
        except ValueError:
            return None
    if isinstance(changed, datetime):
        return (changed if changed.tzinfo else changed.replace(tzinfo=UTC)).timestamp()
    return float(changed) if isinstance(changed, int | float) else None
