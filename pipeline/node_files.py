"""Files that the driver read once, on the disk of every node that needs them: checkpoints among them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

# As bytes: arrays travel through the object store without a copy.
Files = Mapping[str, npt.NDArray[np.uint8]]


def digest_of(files: Files) -> str:
    """SHA-256 of the files' names and contents."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}:{len(files[name])}\n".encode())
        digest.update(files[name].data)
    return f"sha256:{digest.hexdigest()}"


def directory_of(files: Files, digest: str) -> Path:
    """The files in a directory of this node, written by whoever comes first."""
    target = Path(tempfile.gettempdir()) / f"w2vbert-{os.getuid()}" / digest.removeprefix("sha256:")[:32]
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            made = Path(work) / "files"
            made.mkdir()
            for name, data in files.items():
                data.tofile(made / name)
            try:
                made.rename(target)
            except OSError:  # another process was first
                if not target.is_dir():
                    raise
    return target


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
