"""What decoders take and give: a file that can seek, or pieces of one laid end to end, and samples."""

from __future__ import annotations

import io
from typing import BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from pipeline.errors import ClipFailedError, Code, Stage

BLOCK_VALUES = 1 << 19  # samples times channels decoded at once

Samples = npt.NDArray[np.float32]


def fail(code: Code, message: str) -> NoReturn:
    raise ClipFailedError(Stage.DECODE, code, message)


class Stream:
    """A seekable file that remembers its failure: libsndfile's callbacks cannot raise, they only print."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None
        self.size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as problem:
            self.failure = problem
            return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # libsndfile follows headers anywhere, even before the beginning.
        return self._file.seek(max(0, offset) if whence == io.SEEK_SET else offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def head(self, size: int, offset: int = 0) -> bytes:
        """`size` bytes from `offset`, without moving."""
        position = self.tell()
        data = self.read_at(offset, size)
        self.seek(position)
        return data

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`."""
        self.seek(offset)
        return self.read(size)

    def part(self, start: int, stop: int) -> Stream:
        """The bytes in [start, stop) as a stream of their own."""
        return self if (start, stop) == (0, self.size) else Pieces(self, range(start, stop))

    def find(self, wanted: bytes, start: int, stop: int) -> int:
        """The offset of the first `wanted` that begins in [start, stop), or -1."""
        step = 1 << 20
        for at in range(start, min(stop, self.size), step):
            last = min(at + step, stop)
            found = self.head(last - at + len(wanted) - 1, at).find(wanted)
            if found >= 0:
                return at + found
        return -1

    def check(self) -> None:
        """Raises what made a read fail."""
        if self.failure is not None:
            raise self.failure


class Pieces(Stream):
    """Bytes, and ranges of a stream's bytes, one after another."""

    def __init__(self, whole: Stream, *pieces: bytes | range) -> None:
        self._whole, self._pieces = whole, pieces
        self.size = sum(len(piece) for piece in pieces)
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        stop = self.size if size < 0 else min(self._at + size, self.size)
        found, first = [], 0
        for piece in self._pieces:
            part = piece[max(self._at - first, 0) : max(stop - first, 0)]
            if part:
                found.append(part if isinstance(part, bytes) else self._whole.read_at(part.start, len(part)))
            first += len(piece)
        data = b"".join(found)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def check(self) -> None:
        self._whole.check()
