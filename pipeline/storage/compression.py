"""Compressed files, read as what they hold."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from typing import BinaryIO, cast

import pyarrow as pa

from pipeline.storage.files import StorageFile

ENDINGS = (".gz", ".bz2", ".xz", ".zst")
# ruff: noqa: SIM115 (whoever reads such a file closes it)
_OPENERS: dict[bytes, Callable[[StorageFile], object]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": lambda file: bz2.BZ2File(cast(BinaryIO, file)),
    b"\xfd7zXZ": lambda file: lzma.LZMAFile(cast(BinaryIO, file)),
    b"\x28\xb5\x2f\xfd": lambda file: pa.CompressedInputStream(file, "zstd"),
}


def decompressed(file: StorageFile) -> BinaryIO:
    """The file, from its start; where it is compressed, by its first bytes, a stream of what it holds.

    What such a stream raises where the file is damaged is not known beforehand. It cannot be asked to seek.
    """
    file.seek(0)
    magic = file.read(6)
    file.seek(0)
    opener = next((opener for start, opener in _OPENERS.items() if magic.startswith(start)), None)
    return cast(BinaryIO, file if opener is None else opener(file))
