"""Local files: links followed, what only looks like a file told apart, and whole files written."""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fsspec.utils import glob_translate

from pipeline.storage.failures import StorageError
from pipeline.storage.files import FILE, FileInfo, file_info
from pipeline.storage.places import glob_root, in_utf8, path_of

FOLDER, KERNEL_FOLDER, UNWANTED = "folder", "kernel folder", "name of no interest"
DANGLING, LOOP, CLOSED = "dangling link", "looping link", "link without access"
_KINDS = {
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
# What file systems without hard links say: of mounted buckets and of memory cards.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_KERNEL = ("/proc/", "/sys/")  # files without a size, and some without an end
Keep = Callable[[str], bool]


@dataclass(frozen=True)
class Entry:
    """A name in a folder; `status` is that of what a link leads to."""

    path: str
    kind: str
    status: os.stat_result | None = None

    def info(self) -> FileInfo:
        held = self.status
        told = {} if held is None else {"size": held.st_size, "mtime": held.st_mtime}
        return file_info(in_utf8(self.path), told, self.kind)


def walk(root: str, keep: Keep | None = None, depth: int | None = None) -> Iterator[Entry]:
    """Everything below a folder but itself; each name counts, whatever else leads to the same file.

    A folder that holds itself, by a link, is entered once. One that is gone is empty, one that cannot be
    listed raises OSError.

    Args:
        keep: which names are of interest; others are not looked at.
        depth: how many levels down; None: all.
    """
    if _in_kernel(root):
        raise StorageError(f"{in_utf8(root)} is a {KERNEL_FOLDER}, which holds no files", refused=True)
    pending = [(root, 1, _inodes_above(root))]
    while pending:
        folder, level, above = pending.pop()
        try:
            with os.scandir(folder) as names:
                above = above | {_inode(os.stat(folder))}
                entries = [
                    _entry(name, above) if keep is None or keep(name.name) else Entry(name.path, UNWANTED)
                    for name in names
                ]
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry is not None:
                yield entry
                if entry.kind == FOLDER and (depth is None or level < depth):
                    pending.append((entry.path, level + 1, above))


def glob(pattern: str, *, below: bool = False) -> Iterable[Entry]:
    """The names that match, as fsspec understands a pattern; `below`: also all below folders that match."""
    root = glob_root(pattern) or "/"
    matches = re.compile(glob_translate(pattern)).match
    depth = None if "**" in pattern else pattern.count("/") - root.rstrip("/").count("/")
    found = {entry.path: entry for entry in walk(root, depth=depth) if matches(entry.path)}
    for folder in [entry.path for entry in found.values() if below and entry.kind == FOLDER]:
        found |= {entry.path: entry for entry in walk(folder)}
    return found.values()


def refuse_special(path: str) -> None:
    """Raises StorageError for what is no file: reading it might never end, or do more than read."""
    kind = _kind(os.stat(path))
    if kind == FILE and _in_kernel(path):
        kind = "file of the kernel"
    if kind != FILE:
        real = os.path.realpath(path)
        leads = "" if real == path else f" (it leads to {in_utf8(real)})"
        raise StorageError(f"{in_utf8(path)} is a {kind}, not a file{leads}", refused=True)


def sync_folder(folder: Path) -> None:
    """So that a name in it outlives a loss of power, as the bytes of the file do."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, data: bytes, *, sync: bool) -> None:
    """Writes a file whole, in the place of what is there."""
    with temporary(path) as whole:
        _fill(whole, data, sync=sync)
        whole.replace(path)
        if sync:
            sync_folder(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Writes a file whole where there is none; False where there is one."""
    with temporary(path) as whole:
        _fill(whole, data, sync=True)
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        except OSError as problem:
            if problem.errno not in _NO_LINKS:
                raise
            if not _create_empty(path):  # for a moment it is there and holds nothing
                return False
            whole.replace(path)
        sync_folder(path.parent)
        return True


def _fill(path: Path, data: bytes, *, sync: bool) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _create_empty(path: Path) -> bool:
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    return True


@contextmanager
def temporary(target: Path, by_way_of: str | None = None) -> Iterator[Path]:
    """A name to write to, beside `target` or in another directory; no such file afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
    # Beside the target it has the start of its name, by which `remove_unfinished` tells whose it is. The
    # whole name may be as long as a name can be.
    path = target.with_name(f".{target.name[:50]}.{unique}")
    if by_way_of is not None:
        path = Path(path_of(by_way_of), f"{target.name}.{unique}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _entry(name: os.DirEntry[str], above: frozenset[tuple[int, int]]) -> Entry | None:
    """None where the name is gone."""
    try:
        status = name.stat()
    except OSError as problem:
        if not name.is_symlink():
            if isinstance(problem, FileNotFoundError):
                return None
            raise
        if isinstance(problem, PermissionError):
            return Entry(name.path, CLOSED)
        if problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            return Entry(name.path, DANGLING)
        raise
    kind = _kind(status)
    if kind == FOLDER and _inode(status) in above:
        kind = LOOP
    elif kind == FOLDER and (name.is_symlink() or f"{name.path}/" in _KERNEL) and _in_kernel(name.path):
        kind = KERNEL_FOLDER
    return Entry(name.path, kind, status)


def _in_kernel(path: str) -> bool:
    return f"{os.path.realpath(path)}/".startswith(_KERNEL)


def _inodes_above(folder: str) -> frozenset[tuple[int, int]]:
    """Of the folders that hold this one: a link to them leads back too."""
    found = set()
    for parent in Path(os.path.realpath(folder)).parents:
        with suppress(OSError):
            found.add(_inode(os.stat(parent)))
    return frozenset(found)


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _kind(status: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(status.st_mode), FILE)
