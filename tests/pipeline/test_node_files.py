"""Files on a node: written once, whoever asks and however many at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
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
    assert contents(folder) == {name: data.tobytes() for name, data in FILES.items()}
    before = (folder / "weights").stat()
    assert directory_of(FILES, digest_of(FILES)) == folder
    after = (folder / "weights").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(folder.parent.iterdir()) == [folder], "nothing half-made stays"


def test_other_files_have_another_place() -> None:
    other = {**FILES, "weights": np.zeros(200, np.uint8)}
    assert digest_of(other) != digest_of(FILES)
    assert directory_of(other, digest_of(other)) != directory_of(FILES, digest_of(FILES))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda folder: os.truncate(folder / "weights", 100),
    "empty": lambda folder: (folder / "weights").write_bytes(b""),
    "of the same size": lambda folder: (folder / "weights").write_bytes(bytes(200)),
    "tidied up": lambda folder: (folder / "config.json").unlink(),
    "one too many": lambda folder: (folder / "pytorch_model.bin").write_bytes(b"x"),
    "no folder": lambda folder: (folder.rename(folder.with_name("x")), folder.write_bytes(b"x")),
}


def test_what_a_killed_process_left_goes(temporary: Path) -> None:
    folder = directory_of(FILES, digest_of(FILES))
    DAMAGE["cut"](folder)
    (folder.parent / "unfinished" / "files").mkdir(parents=True)
    directory_of(FILES, digest_of(FILES))
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_is_not_whole_is_made_anew(damage: str, temporary: Path) -> None:
    folder = directory_of(FILES, digest_of(FILES))
    DAMAGE[damage](folder)
    assert directory_of(FILES, digest_of(FILES)) == folder
    assert contents(folder) == {name: data.tobytes() for name, data in FILES.items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def planted_link(home: Path) -> None:
    (home.parent / "elsewhere").mkdir(mode=0o700)
    home.symlink_to(home.parent / "elsewhere")


def open_to_others(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)


def of_another(home: Path) -> None:
    home.mkdir(mode=0o700)
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(home, 12345, -1)


@pytest.mark.parametrize(
    "plant", [planted_link, open_to_others, of_another, lambda home: home.write_text("")]
)
def test_what_others_planted_is_not_used(plant: Callable[[Path], None], temporary: Path) -> None:
    home = temporary / f"w2vbert-{os.getuid()}"
    plant(home)
    digest = digest_of(FILES).removeprefix("sha256:")[:32]
    if home.is_dir():  # the very folder that would be looked for
        (home / digest).mkdir()
        for name, data in FILES.items():
            data.tofile(home / digest / name)
    folder = directory_of(FILES, digest_of(FILES))
    assert contents(folder) == {name: data.tobytes() for name, data in FILES.items()}
    own = folder.parent
    assert (own.parent, own.resolve()) == (temporary, own)
    assert own != home
    found = own.lstat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.getuid(), 0o700)
    assert directory_of(FILES, digest_of(FILES)) == folder, "one of this process, not one of each call"


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True])
def test_processes_at_once(temporary: Path, damaged: bool) -> None:
    if damaged:
        DAMAGE["cut"](directory_of(FILES, digest_of(FILES)))
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", WRITE], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    shown = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    folder = directory_of(FILES, digest_of(FILES))
    assert shown == {str(folder)}
    assert contents(folder) == {name: data.tobytes() for name, data in FILES.items()}
    assert list(folder.parent.iterdir()) == [folder]
