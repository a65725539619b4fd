"""Files on a node: written once, whoever asks and however many at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.node_files import Files, digest_of, directory_of
from tests.conftest import ROOT

FILES: Files = {"config.json": np.frombuffer(b"{}", np.uint8), "weights": np.arange(200, dtype=np.uint8)}
WRITE = """
import numpy as np
from pipeline.node_files import digest_of, directory_of
files = {"config.json": np.frombuffer(b"{}", np.uint8), "weights": np.arange(200, dtype=np.uint8)}
print(directory_of(files, digest_of(files)))
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_written_once() -> None:
    folder = directory_of(FILES, digest_of(FILES))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        name: data.tobytes() for name, data in FILES.items()
    }
    before = (folder / "weights").stat()
    assert directory_of(FILES, digest_of(FILES)) == folder
    after = (folder / "weights").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(folder.parent.iterdir()) == [folder], "nothing half-made stays"


def test_other_files_have_another_place() -> None:
    other = {**FILES, "weights": np.zeros(200, np.uint8)}
    assert digest_of(other) != digest_of(FILES)
    assert directory_of(other, digest_of(other)) != directory_of(FILES, digest_of(FILES))


def test_two_processes_at_once(temporary: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", WRITE], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    shown = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    folder = directory_of(FILES, digest_of(FILES))
    assert shown == {str(folder)}
    assert (folder / "weights").read_bytes() == FILES["weights"].tobytes()
    assert list(folder.parent.iterdir()) == [folder]
