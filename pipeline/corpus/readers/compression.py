"""Compressed files, read as what they hold."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipeline.storage import StorageFile

ENDINGS = (".gz", ".bz2", ".xz", ".zst")
_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda file: pa.CompressedInputStream(file, "zstd"),
}
_PIECE_BYTES = 64 << 10


class Unpacked(io.RawIOBase):
    """A compressed stream that hands out what it has before it reports damage. It does not seek."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        # read() would drop the bytes it gathered before the damage.
        data = self._stream.read1(min(len(buffer), _PIECE_BYTES))
        buffer[: len(data)] = data
        return len(data)


def decompressed(file: StorageFile) -> io.RawIOBase:
    """The file, from its start; where it is compressed, by its first bytes, what it holds.

    What such a stream raises where the file is damaged is not known beforehand.
    """
    file.seek(0)
    magic = file.read(6)
    file.seek(0)
    opener = next((opener for start, opener in _OPENERS.items() if magic.startswith(start)), None)
    return file if opener is None else Unpacked(opener(file))
