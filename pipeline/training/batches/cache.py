"""Features of the table on this node's disk, mapped into memory: a clip is a view, not a copy."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import JobError
from pipeline.node_files import private_directory
from pipeline.storage import Storage, StorageError
from pipeline.table.reader import open_parquet
from pipeline.training.feature_table.schema import FEATURES

_SCHEMA = pa.schema({name: FEATURES[name] for name in ("frames", "features", "log_mel_mean", "log_mel_std")})
_ROWS = 256  # written at once
_ATTEMPTS = 3  # other processes may take a file away between its making and its opening
_ENDING, _UNFINISHED = ".arrow", ".unfinished"
Floats = npt.NDArray[np.float32]


class StoredClip(NamedTuple):
    """A clip of the feature table.

    Attributes:
        features: (frames, width) float16, a view of the file.
        mean, std: (num_mel_bins,), what was taken away: features * std + mean is the log mel energy again.
    """

    features: npt.NDArray[np.float16]
    mean: Floats
    std: Floats


class FeatureFile:
    """One file of the table, mapped.

    Raises:
        pa.ArrowInvalid: it is cut, or none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._batches = [_Batch(batch) for batch in batches]
        self._starts = list(accumulate((len(batch) for batch in batches), initial=0))

    def clip(self, row: int) -> StoredClip:
        """
        Raises:
            IndexError: there is no such row, or it has no features.
        """
        if not 0 <= row < self._starts[-1]:
            raise IndexError(row)
        number = bisect_right(self._starts, row) - 1
        return self._batches[number].clip(row - self._starts[number])


class _Batch:
    """Some rows of a file, as NumPy sees them."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        _, offsets, data = batch["features"].buffers()
        self._frames = batch["frames"].fill_null(0).to_numpy()
        self._offsets = np.frombuffer(offsets, np.int64) // 2
        self._features = np.frombuffer(data if data is not None else b"", np.float16)
        self._means, self._stds = (
            (lists.offsets.to_numpy(), lists.values.to_numpy())
            for lists in (batch["log_mel_mean"], batch["log_mel_std"])
        )

    def clip(self, row: int) -> StoredClip:
        frames, (start, stop) = int(self._frames[row]), self._offsets[row : row + 2]
        if start == stop or not frames:
            raise IndexError(row)
        mean, std = (values[at[row] : at[row + 1]] for at, values in (self._means, self._stds))
        return StoredClip(self._features[start:stop].reshape(frames, -1), mean, std)


class FeatureCache:
    """The files of a feature table, each made once per node, by whichever process comes first.

    What lies there cut or damaged is made anew. Several threads may use it.

    Args:
        directory: of the files; one of this user in the temporary directory if None.
        limit_bytes: of all files; the least recently used make room for a new one. None: no limit.
    """

    def __init__(
        self, storage: Storage, directory: Path | None = None, limit_bytes: int | None = None
    ) -> None:
        self._storage, self._limit = storage, limit_bytes
        self._directory = directory or private_directory() / "features"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._opened: dict[str, FeatureFile] = {}
        self._lock = Lock()

    def file(self, uri: str) -> FeatureFile:
        """A file of the table.

        Raises:
            StorageError: it cannot be read, or is no file of a feature table.
            JobError: the disk is full.
        """
        found = self._opened.get(uri)
        if found is None:
            found = self._open(uri)
            with self._lock:
                self._opened[uri] = found
        with suppress(FileNotFoundError):  # what is gone stays readable while it is mapped
            os.utime(found.path)
        return found

    def _open(self, uri: str) -> FeatureFile:
        info = self._storage.info(uri)
        name = hashlib.blake2b(f"{uri}\n{info.version}".encode(), digest_size=16).hexdigest()
        path = self._directory / f"{name}{_ENDING}"
        for _ in range(_ATTEMPTS):
            if (found := _whole(path)) is not None:
                return found
            with _full_disks(self._directory), _alone(path.with_suffix(_UNFINISHED)) as unfinished:
                if _whole(path) is None:  # another process was not first
                    self._make_room(info.size)
                    self._write(uri, unfinished)
                    os.replace(path.with_suffix(_UNFINISHED), path)
        raise JobError(
            f"the features of {uri} do not stay in {self._directory}: something else removes them, or "
            "--features-cache-gb is too small for the files of one window."
        )

    def _write(self, uri: str, unfinished: BinaryIO) -> None:
        with open_parquet(uri, self._storage) as file, pa.ipc.new_file(unfinished, _SCHEMA) as writer:
            if missing := set(_SCHEMA.names) - set(file.schema_arrow.names):
                raise StorageError(f"{uri} is no file of a feature table: it has no {', '.join(missing)}")
            for batch in file.iter_batches(_ROWS, columns=_SCHEMA.names, use_threads=False):
                writer.write_batch(batch.select(_SCHEMA.names).cast(_SCHEMA))
        unfinished.flush()

    def _make_room(self, size: int) -> None:
        """Removes files until there is room for another one."""
        if self._limit is None:
            return
        found = []
        for path in self._directory.glob(f"*{_ENDING}"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        held = sum(size for _, size, _ in found)
        for _, freed, path in sorted(found):
            if held + size <= self._limit:
                break
            path.unlink(missing_ok=True)
            held -= freed
        with self._lock:
            self._opened = {uri: file for uri, file in self._opened.items() if file.path.exists()}


def _whole(path: Path) -> FeatureFile | None:
    try:
        return FeatureFile(path)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None


@contextmanager
def _full_disks(directory: Path) -> Iterator[None]:
    """Says in a person's words that a disk is full."""
    try:
        yield
    except OSError as problem:
        if errno.ENOSPC not in (problem.errno, getattr(problem.__cause__, "errno", None)):
            raise
        raise JobError(
            f"the disk of {directory} is full: give the features less of it (--features-cache-gb), or "
            "another place (TMPDIR)."
        ) from problem


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """An empty file of this name to write, for one process or thread at a time.

    The lock ends with its process, however that ends. What is still called so at the end is removed.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is(file, path):
            break
        file.close()  # while this one waited, another finished it
    with file:
        try:
            file.truncate(0)
            yield file
        finally:
            if _is(file, path):
                path.unlink()


def _is(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is what this path leads to."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
