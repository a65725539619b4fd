"""An open file, and a file as a listing tells of it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.storage.failures import StorageError, retried

FILE = "file"


class StorageFile(io.RawIOBase):
    """An open file. Whatever storage raises while it is read or written is a StorageError.

    A read that fails for a reason that may pass is tried again.
    """

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
        at = self._file.tell()

        def read() -> bytes:
            if self._file.tell() != at:
                self._file.seek(at)
            data: bytes = self._file.read(-1 if size is None else size)
            return data

        try:
            return retried(read, lambda problem: str(self._error(problem)))
        except Exception as problem:
            raise self._error(problem) from problem

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
    seconds since 1970 (UTC); None where storage tells none. `kind` is "file", or says what else it is.
    """

    uri: str
    size: int
    version: str
    modified: float | None
    kind: str = FILE


def file_info(uri: str, info: Mapping[str, Any], kind: str = FILE) -> FileInfo:
    """From what fsspec tells; its filesystems have names of their own for tags and times."""
    size = int(info.get("size") or 0)
    tag = info.get("ETag") or info.get("etag") or info.get("blob_id")  # the last is the Hub's
    changed = info.get("mtime") or info.get("LastModified") or info.get("last_modified")
    version = str(tag).strip('"') if tag else f"{size}-{changed or ''}"
    return FileInfo(uri, size, version, _seconds(changed), kind)


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
