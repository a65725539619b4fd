"""Files that the driver read once, on the disk of every node that needs them: checkpoints among them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

# As bytes: arrays travel through the object store without a copy.
Files = Mapping[str, npt.NDArray[np.uint8]]
_COMPARED_BYTES = 16 << 20  # at a time


def digest_of(files: Files) -> str:
    """SHA-256 of the files' names and contents."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}:{len(files[name])}\n".encode())
        digest.update(files[name].data)
    return f"sha256:{digest.hexdigest()}"


def directory_of(files: Files, digest: str) -> Path:
    """The files in a directory of this node that nobody else can write, made by whoever comes first.

    What lies there already is compared byte for byte: a full disk, a machine that stopped and whoever tidies
    the temporary directory leave files cut or missing. Then the directory is made anew.
    """
    home = private_directory()
    target = home / digest.removeprefix("sha256:")[:32]
    if not _holds(target, files):
        with _alone_in(home):
            if not _holds(target, files):  # another process was first
                _make(target, files)
    return target


def private_directory() -> Path:
    """A directory of this node that this user alone may enter."""
    home = Path(tempfile.gettempdir(), f"w2vbert-{os.getuid()}")
    with suppress(FileExistsError):
        home.mkdir(mode=0o700)
    found = home.lstat()  # of a link itself
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return home
    return Path(_own_home(str(home)).name)


@cache
def _own_home(taken: str) -> tempfile.TemporaryDirectory[str]:
    """One for this process alone, and with its end gone, where somebody else has the name."""
    return tempfile.TemporaryDirectory(prefix=f"{os.path.basename(taken)}-", dir=os.path.dirname(taken))


@contextmanager
def _alone_in(home: Path) -> Iterator[None]:
    """Lets one process of this node in at a time; the lock ends with its process, however that ends."""
    opened = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _holds(directory: Path, files: Files) -> bool:
    """Whether the directory holds these files and no others, whole."""
    try:
        return set(os.listdir(directory)) == files.keys() and all(
            _is(directory / name, data) for name, data in files.items()
        )
    except OSError:
        return False


def _is(path: Path, data: npt.NDArray[np.uint8]) -> bool:
    if path.stat().st_size != len(data):
        return False
    with path.open("rb") as file:
        parts = (data[start : start + _COMPARED_BYTES] for start in range(0, len(data), _COMPARED_BYTES))
        return all(np.array_equal(np.frombuffer(file.read(len(part)), np.uint8), part) for part in parts)


def _make(target: Path, files: Files) -> None:
    """Under its name when it is complete; what had the name before goes."""
    work = target.with_name("unfinished")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
    try:
        made = work / "files"
        made.mkdir(parents=True)
        for name, data in files.items():
            data.tofile(made / name)
        if os.path.lexists(target):
            target.rename(work / "old")
        made.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of a checkpoint."""

    name: str
    digest: str
    files: Files

    def directory(self) -> Path:
        """The files in a directory of this node. A job's is a copy, so that whoever replaces the checkpoint
        does not pull the weights from under it."""
        return directory_of(self.files, self.digest)

    def settings(self) -> Path:
        """Configuration, features and vocabulary, without the weights, in a directory of this node."""
        files = {name: data for name, data in self.files.items() if name.endswith(".json")}
        return directory_of(files, digest_of(files))

    @property
    def config(self) -> Wav2Vec2BertConfig:
        from w2vbert.config import Wav2Vec2BertConfig

        return Wav2Vec2BertConfig.from_pretrained(self.settings())

    @property
    def extractor(self) -> SeamlessM4TFeatureExtractor:
        """The feature extractor; the published one where only the model was saved."""
        return read_extractor(self.settings())


def read_extractor(directory: Path) -> SeamlessM4TFeatureExtractor:
    """The feature extractor of a checkpoint; the published one where only the model was saved."""
    from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
    from w2vbert.pretrained.hub import CheckpointNotFoundError

    try:
        return SeamlessM4TFeatureExtractor.from_pretrained(directory)
    except CheckpointNotFoundError:
        return SeamlessM4TFeatureExtractor()
