"""Files that the driver read once, on the disk of every node that needs them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
