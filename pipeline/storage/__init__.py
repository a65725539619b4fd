"""Every place that is read or written: local paths, object stores, web servers that are allowed."""

from __future__ import annotations

import contextlib
import errno
import inspect
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import JobError
from pipeline.storage import local
from pipeline.storage.failures import (
    StorageError,
    first_cause,
    in_words,
    is_missing,
    place_errors,
    retried,
    s3_code,
)
from pipeline.storage.files import FILE, FileInfo, StorageFile, file_info
from pipeline.storage.options import StorageOptions, as_hosts
from pipeline.storage.places import (
    HTTP,
    S3,
    Places,
    absolute,
    as_places,
    as_utf8,
    collapsed,
    glob_root,
    hosts_of,
    in_utf8,
    is_remote,
    join,
    name_in_utf8,
    name_of,
    one_scheme,
    path_of,
    resolve,
    scheme_of,
    uri_of,
)
from pipeline.storage.secrets import PublicOptions, can_be_opened, redact, refusal, without_credentials

__all__ = [
    "FILE",
    "FileInfo",
    "Places",
    "PublicOptions",
    "Storage",
    "StorageError",
    "StorageFile",
    "StorageOptions",
    "as_hosts",
    "as_places",
    "as_utf8",
    "glob_root",
    "hosts_of",
    "is_remote",
    "join",
    "name_in_utf8",
    "name_of",
    "path_of",
    "place_errors",
    "redact",
    "resolve",
    "uri_of",
    "without_credentials",
]

Answer = TypeVar("Answer")
_NOWHERE = (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)  # names that nothing can have
_LOG = logging.getLogger(__name__)
_CREATE_ATTEMPTS = 5  # S3 answers two conditional puts at once with a conflict that is to be tried again


@dataclass(frozen=True)
class Storage:
    """Opens any URI; picklable, so that tasks on other nodes open the same.

    Every method raises StorageError where storage refuses or fails, or no filesystem is known for the URI.
    What only reads is tried again where the failure may pass.

    Attributes:
        hosts: web servers that may be asked, with a port or for any.
    """

    options: StorageOptions
    hosts: frozenset[str] = frozenset()

    def normalise(self, uri: str) -> str:
        """One spelling per place: absolute local paths, else URIs.

        Raises:
            JobError: no place of this machine, or credentials inside the URI.
        """
        if not uri:
            raise JobError("an empty path names no place.")
        scheme = scheme_of(uri)
        if scheme in (None, "file"):
            try:
                return in_utf8(absolute(os.path.expanduser(uri) if scheme is None else path_of(uri)))
            except (StorageError, ValueError) as problem:
                raise JobError(f"{problem}.") from problem
        if without_credentials(uri) != uri:
            raise JobError(f"{refusal(uri)}.")
        if scheme not in S3:
            return one_scheme(uri)
        given = one_scheme(uri).rstrip("/")
        # Keys may really hold "//" or "..": that is a place of its own where something is there.
        return given if collapsed(given) == given or self._is_there(given) else collapsed(given)

    def real(self, uri: str) -> str:
        """Where the links of a local path lead; other places have none."""
        with self._explained(uri):
            local_place = isinstance(self._filesystem(uri), LocalFileSystem)
            return in_utf8(os.path.realpath(path_of(uri))) if local_place else uri

    def open(self, uri: str, **arguments: Any) -> StorageFile:
        """The file to read; `arguments` are the filesystem's (`block_size`)."""
        file = self._read(uri, lambda filesystem, path: filesystem.open(path, "rb", **arguments))
        return self._wrapped(uri, file)

    def read_bytes(self, uri: str) -> bytes:
        return bytes(self._read(uri, lambda filesystem, path: filesystem.cat_file(path)))

    def read_bytes_or_none(self, uri: str) -> bytes | None:
        """None where there is no such file."""
        try:
            return self.read_bytes(uri)
        except StorageError as problem:
            if problem.missing:
                return None
            raise

    def write_bytes(self, uri: str, data: bytes, *, sync: bool = True) -> None:
        """Writes a small file whole: a reader sees all of it or none.

        Args:
            sync: a loss of power must not cost it.
        """
        filesystem, path = self._filesystem(uri), path_of(uri)
        with self._explained(uri):
            if isinstance(filesystem, LocalFileSystem):
                local.write(Path(path), data, sync=sync)
            else:
                filesystem.pipe_file(path, data)

    def create(self, uri: str, data: bytes) -> bool:
        """Writes a small file whole where there is none; False, and nothing done, where there is another.

        Of several that try at once, each with data of its own, one gets True. Where the answer to a request
        was lost, the next attempt finds the file: what it holds tells who wrote it. Where a filesystem has
        no such request, this looks, writes and looks again, and logs a warning.
        """
        filesystem, path = self._filesystem(uri), path_of(uri)
        if isinstance(filesystem, LocalFileSystem):
            with self._explained(uri):
                return local.create(Path(path), data) or self.read_bytes_or_none(uri) == data
        put = getattr(filesystem, "_pipe_file", filesystem.pipe_file)
        if "mode" not in inspect.signature(put).parameters:
            _LOG.warning("%s: this storage cannot tell who created a file first", without_credentials(uri))
            if not self.exists(uri):
                self.write_bytes(uri, data)
            return self.read_bytes_or_none(uri) == data
        with self._explained(uri):
            for attempts_left in reversed(range(_CREATE_ATTEMPTS)):
                try:
                    filesystem.pipe_file(path, data, mode="create")
                    return True
                except Exception as problem:
                    if isinstance(problem, FileExistsError) or s3_code(problem) == "PreconditionFailed":
                        break
                    if not attempts_left or s3_code(problem) != "ConditionalRequestConflict":
                        raise
        return self.read_bytes_or_none(uri) == data

    @contextlib.contextmanager
    def writing(self, uri: str, *, by_way_of: str | None = None) -> Iterator[StorageFile]:
        """A binary file to write; a reader sees all of it when the block is done, nothing when it fails.

        Args:
            by_way_of: a directory for a local file until it is whole, on the same disk; None: its own.
        """
        filesystem, path = self._filesystem(uri), path_of(uri)
        if isinstance(filesystem, LocalFileSystem):
            with contextlib.ExitStack() as stack:
                with self._explained(uri):
                    temporary = stack.enter_context(local.temporary(Path(path), by_way_of))
                    file = self._wrapped(uri, temporary.open("wb"))
                with file:
                    yield file
                    with self._explained(uri):
                        file.sync()
                with self._explained(uri):
                    temporary.replace(path)
                    local.sync_folder(Path(path).parent)
            return
        with self._explained(uri):
            handle = filesystem.open(path, "wb", autocommit=False)
        file = self._wrapped(uri, handle)
        try:
            yield file
            file.close()
        except BaseException:
            file.discard()
            raise
        with self._explained(uri):
            try:
                handle.commit()
            except FileNotFoundError:
                # Its answer was lost, and what it was to join is joined: the repetition finds no parts.
                if filesystem.info(path)["size"] != handle.tell():
                    raise

    def exists(self, uri: str) -> bool:
        """A link to nowhere does not."""
        return self._type(uri) is not None

    def is_dir(self, uri: str) -> bool:
        return bool(self._read(uri, lambda filesystem, path: filesystem.isdir(path)))

    def is_file(self, uri: str) -> bool:
        return self._type(uri) == "file"

    def stands_alone(self, uri: str) -> bool:
        """Whether nothing may be laid beside it: a bucket, a mount point, a folder among somebody else's."""
        path = path_of(uri).rstrip("/")
        if not isinstance(self._filesystem(uri), LocalFileSystem):
            return "/" not in path
        parent = Path(path).parent
        if not path or not Path(path).exists():
            return not path
        return os.stat(path).st_dev != os.stat(parent).st_dev or not os.access(parent, os.W_OK)

    def is_replaceable(self, uri: str) -> bool:
        """False where something other than an ordinary file is there: a device, a pipe, a link."""
        with self._explained(uri):
            is_local = isinstance(self._filesystem(uri), LocalFileSystem) and os.path.lexists(path_of(uri))
            return not is_local or stat.S_ISREG(os.lstat(path_of(uri)).st_mode)

    def is_glob(self, uri: str) -> bool:
        """Whether it has wildcards and is not itself the name of something."""
        wild = scheme_of(uri) not in HTTP and any(sign in path_of(uri) for sign in "*?[")
        return wild and not self.exists(uri)

    def info(self, uri: str) -> FileInfo:
        """Raises StorageError also for what is there, but is no file."""

        def look(filesystem: fsspec.AbstractFileSystem, path: str) -> FileInfo:
            if isinstance(filesystem, LocalFileSystem):
                local.refuse_special(path)
            return file_info(uri, filesystem.info(path))

        return self._read(uri, look)

    def find(self, uri: str, keep: local.Keep | None = None) -> list[FileInfo]:
        """What is in a directory and below it, by name, but for the directories.

        Args:
            keep: which names are of interest; local directories of other names are not entered.
        """

        def look(filesystem: fsspec.AbstractFileSystem, path: str) -> list[FileInfo]:
            if isinstance(filesystem, LocalFileSystem):
                return _infos(local.walk(path, keep))
            return _files(uri, filesystem.find(path, detail=True))

        return self._read(uri, look)

    def glob(self, uri: str, *, below: bool = False) -> list[FileInfo]:
        """What matches, by name, but for directories; `below`: also what lies in those that match."""

        def look(filesystem: fsspec.AbstractFileSystem, path: str) -> list[FileInfo]:
            if isinstance(filesystem, LocalFileSystem):
                return _infos(local.glob(path, below=below))
            found = dict(filesystem.glob(path, detail=True))
            for name in [name for name, info in found.items() if below and info["type"] == "directory"]:
                found |= filesystem.find(name, detail=True)
            return _files(uri, found)

        return self._read(uri, look)

    def list_files(self, uri: str, *, recursive: bool = False) -> list[str]:
        """URIs of the files in a directory, sorted; empty when there is none. Links are not followed."""
        return list(self.sizes(uri, recursive=recursive))

    def sizes(self, uri: str, *, recursive: bool = False) -> dict[str, int]:
        """What `list_files` lists, with the bytes of each, which cost nothing more."""

        def look(filesystem: fsspec.AbstractFileSystem, path: str) -> dict[str, int]:
            found: dict[str, Any] = {}
            with contextlib.suppress(FileNotFoundError):
                found = filesystem.find(path, maxdepth=None if recursive else 1, detail=True)
            return {uri_of(uri, name): int(info.get("size") or 0) for name, info in found.items()}

        return dict(sorted(self._read(uri, look).items()))

    def remove(self, uri: str, *, recursive: bool = False) -> None:
        filesystem, path = self._filesystem(uri), path_of(uri)
        with self._explained(uri), contextlib.suppress(FileNotFoundError):
            if isinstance(filesystem, LocalFileSystem) or not any(sign in path for sign in "*?["):
                filesystem.rm(path, recursive=recursive)
                return
            # A remote `rm` takes such a name for a pattern, and would remove what matches.
            for name in filesystem.find(path) if recursive else [path]:
                filesystem.rm_file(name)

    def remove_empty_folder(self, uri: str) -> None:
        """Objects have no folders: only a local one can be left empty."""
        if isinstance(self._filesystem(uri), LocalFileSystem):
            with contextlib.suppress(OSError):
                os.rmdir(path_of(uri))

    def explain(self, uri: str, problem: Exception) -> str:
        """A storage failure in a person's words, without credentials."""
        problem = first_cause(problem)
        if isinstance(problem, StorageError):
            return str(problem)
        text = self.options.redact(str(problem), uri) or type(problem).__name__
        return in_words(without_credentials(uri), problem, text.encode("utf-8", "backslashreplace").decode())

    def _read(self, uri: str, ask: Callable[[fsspec.AbstractFileSystem, str], Answer]) -> Answer:
        """What a filesystem answers, given the path, or a failure that lasts."""
        with self._explained(uri):
            filesystem, path = self._filesystem(uri), path_of(uri)
            return retried(lambda: ask(filesystem, path), lambda problem: self.explain(uri, problem))

    def _type(self, uri: str) -> str | None:
        """ "file", "directory" or "other"; None where nothing is. fsspec's own answers hide failures."""
        try:
            found: str = self._read(uri, lambda filesystem, path: filesystem.info(path)["type"])
        except StorageError as problem:
            if problem.missing or getattr(problem.__cause__, "errno", None) in _NOWHERE:
                return None
            raise
        return found

    def _is_there(self, uri: str) -> bool:
        """Whether it exists, as far as one is told."""
        try:
            return self.exists(uri)
        except StorageError:
            return True

    @contextlib.contextmanager
    def _explained(self, uri: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except Exception as problem:  # every protocol has exceptions of its own
            # What it said stays in tracebacks, unless it told a secret.
            told = self.options.redact(str(problem), uri) != str(problem)
            raise self._error(uri, problem) from (None if told else problem)

    def _error(self, uri: str, problem: Exception) -> StorageError:
        cause = first_cause(problem)
        if isinstance(cause, StorageError):
            return cause
        return StorageError(self.explain(uri, cause), missing=is_missing(cause))

    def _wrapped(self, uri: str, file: Any) -> StorageFile:
        return StorageFile(file, lambda problem: self._error(uri, problem))

    def _filesystem(self, uri: str) -> fsspec.AbstractFileSystem:
        if not can_be_opened(uri):
            raise StorageError(refusal(uri), refused=True)
        # s3fs takes a second to import, and `--help` needs no storage.
        from pipeline.storage.filesystems import filesystem_of

        return filesystem_of(uri, self.options.s3_arguments(), self.hosts)


def _infos(entries: Iterable[local.Entry]) -> list[FileInfo]:
    found = (entry.info() for entry in entries if entry.kind != local.FOLDER)
    return sorted(found, key=lambda info: path_of(info.uri))


def _files(uri: str, found: Mapping[str, Mapping[str, Any]]) -> list[FileInfo]:
    files = ((path, info) for path, info in sorted(found.items()) if info["type"] == "file")
    return [file_info(uri_of(uri, path), info) for path, info in files]
