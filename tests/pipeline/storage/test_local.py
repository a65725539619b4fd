"""Local folders: links followed, loops and what is no file told apart, devices refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage import FILE, Storage, StorageError, StorageOptions

STORAGE = Storage(StorageOptions())


def found(folder: Path) -> dict[str, str]:
    """Names below a folder, and what they are."""
    return {info.uri.removeprefix(f"{folder}/"): info.kind for info in STORAGE.find(str(folder))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file, and links of all kinds."""
    (tmp_path / "store" / "folder").mkdir(parents=True)
    for name in ("blob", "folder/inside.wav"):
        (tmp_path / "store" / name).write_bytes(b"12345")
    home = tmp_path / "in"
    home.mkdir()
    (home / "plain.wav").write_bytes(b"1")
    for name, target in (
        ("linked.wav", "../store/blob"),
        ("alias.wav", "plain.wav"),
        ("chain.wav", "linked.wav"),
        ("linked-folder", "../store/folder"),
        ("again", "linked-folder"),
        ("dangling.wav", "nowhere.wav"),
        ("itself.wav", "itself.wav"),
        ("loop", "."),
        ("up", ".."),
    ):
        (home / name).symlink_to(target)
    return home


def test_each_name_is_a_file_and_loops_end(folder: Path) -> None:
    files = (
        "again/inside.wav",
        "alias.wav",
        "chain.wav",
        "linked-folder/inside.wav",
        "linked.wav",
        "plain.wav",
    )
    assert found(folder) == {
        **dict.fromkeys(files, FILE),
        **dict.fromkeys(("dangling.wav", "itself.wav"), "dangling link"),
        **dict.fromkeys(("loop", "up"), "looping link"),
    }
    sizes = {info.uri.rsplit("/", 1)[-1]: info.size for info in STORAGE.find(str(folder))}
    assert (sizes["linked.wav"], sizes["plain.wav"]) == (5, 1)


def test_folders_that_hold_each_other_end(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.wav").write_bytes(b"1")
        (tmp_path / name / other).symlink_to(tmp_path / other)
    files = [name for name, kind in found(tmp_path).items() if kind == FILE]
    assert files == ["a/b/x.wav", "a/x.wav", "b/a/x.wav", "b/x.wav"]


def test_a_pattern_follows_links_too(folder: Path) -> None:
    def matches(pattern: str, below: bool = False) -> list[str]:
        infos = STORAGE.glob(f"{folder}/{pattern}", below=below)
        return [info.uri.removeprefix(f"{folder}/") for info in infos if info.kind == FILE]

    assert matches("*.wav") == ["alias.wav", "chain.wav", "linked.wav", "plain.wav"]
    assert matches("*/*.wav") == ["again/inside.wav", "linked-folder/inside.wav"]
    assert matches("link*", below=True) == ["linked-folder/inside.wav", "linked.wav"]
    assert matches("**/inside.wav") == ["again/inside.wav", "linked-folder/inside.wav"]
    assert matches("**", below=True) == sorted(
        [*matches("*.wav"), "again/inside.wav", "linked-folder/inside.wav"]
    )


@pytest.fixture
def special(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Names of what is no file, and links to it."""
    places = {"pipe": tmp_path / "pipe.wav", "socket": tmp_path / "socket.wav"}
    os.mkfifo(places["pipe"])
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(places["socket"]))
    links = {"linked pipe": "pipe.wav", "zero": "/dev/zero", "tty": "/dev/tty", "random": "/dev/urandom"}
    for name, target in links.items():
        places[name] = tmp_path / f"{name}.wav"
        places[name].symlink_to(target)
    places |= {"null": Path("/dev/null"), "in a folder of the kernel": Path("/proc/self/environ")}
    places |= {"log of the kernel": Path("/proc/kmsg"), "status": tmp_path / "status.wav"}
    places["status"].symlink_to("/proc/self/status")
    yield places
    server.close()


def test_what_is_no_file_is_refused_at_once(special: dict[str, Path]) -> None:
    said = {
        "pipe": "is a pipe",
        "socket": "is a socket",
        "linked pipe": "is a pipe, not a file (it leads to ",
    }
    said |= dict.fromkeys(("zero", "tty", "random", "null"), "is a device, not a file")
    for name, path in special.items():
        for read in (STORAGE.open, STORAGE.read_bytes, STORAGE.info):
            with pytest.raises(StorageError) as caught:
                read(str(path))
            assert f"{path} {said.get(name, 'is a file of the kernel, not a file')}" in str(caught.value)
            assert caught.value.refused
            assert not caught.value.not_delivered


def test_what_is_no_file_is_listed_as_what_it_is(special: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "kernel").symlink_to("/proc")
    kinds = {"pipe.wav": "pipe", "linked pipe.wav": "pipe", "socket.wav": "socket", "kernel": "kernel folder"}
    kinds |= dict.fromkeys(("zero.wav", "tty.wav", "random.wav"), "device")
    listed = found(tmp_path)
    listed.pop("status.wav")
    assert listed == kinds
    with pytest.raises(StorageError, match="/proc is a kernel folder"):
        STORAGE.find("/proc")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a folder, not a file") as caught:
        STORAGE.open(str(tmp_path))
    assert caught.value.refused


def test_a_listing_of_outputs_enters_no_link(folder: Path) -> None:
    listed = STORAGE.list_files(str(folder), recursive=True)
    assert f"{folder}/linked-folder/inside.wav" not in listed
    assert f"{folder}/plain.wav" in listed


def test_names_that_nobody_wants_are_not_entered(tmp_path: Path) -> None:
    for name in ("a/x", ".git/annex/y", "b/.z"):
        STORAGE.write_bytes(str(tmp_path / name), b"")
    (tmp_path / ".git").chmod(0)
    try:
        kept = STORAGE.find(str(tmp_path), lambda name: not name.startswith("."))
    finally:
        (tmp_path / ".git").chmod(0o700)
    assert {info.uri.removeprefix(f"{tmp_path}/"): info.kind for info in kept} == {
        ".git": "name of no interest",
        "a/x": FILE,
        "b/.z": "name of no interest",
    }
