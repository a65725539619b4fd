"""URIs to filesystems: local paths, s3:// and whatever else fsspec speaks. The only file that knows."""

from __future__ import annotations

import contextlib
import inspect
import os
import posixpath
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import JobError
from pipeline.storage.files import FileInfo, StorageError, StorageFile, file_info, place_errors
from pipeline.storage.options import StorageOptions

__all__ = [
    "FileInfo",
    "Storage",
    "StorageError",
    "StorageFile",
    "StorageOptions",
    "is_remote",
    "join",
    "path_of",
    "place_errors",
    "resolve",
    "uri_of",
    "without_credentials",
]

_CREATE_ATTEMPTS = 5  # S3 answers two conditional puts at once with a conflict that is to be tried again


@dataclass(frozen=True)
class Storage:
    """Opens any URI; picklable, so that tasks on other nodes open the same.

    Every method raises StorageError where storage refuses or fails, or no filesystem is known for the URI.
    """

    options: StorageOptions

    def normalise(self, uri: str) -> str:
        """One spelling per place: absolute local paths, else URIs.

        Raises:
            JobError: credentials inside the URI.
        """
        if not is_remote(uri):
            return str(Path(os.path.expanduser(uri)).absolute())
        if uri.startswith("file://"):
            return str(Path(urlsplit(uri).path).absolute())
        if without_credentials(uri) != uri:
            raise JobError(
                f"{without_credentials(uri)} carries credentials in the URI, which logs would repeat; "
                "give them through the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) instead."
            )
        return uri

    def open(self, uri: str, **arguments: Any) -> StorageFile:
        """The file to read; `arguments` are the filesystem's (`block_size`)."""
        with self._explained(uri):
            file = self._filesystem(uri).open(path_of(uri), "rb", **arguments)
        return self._wrapped(uri, file)

    def read_bytes(self, uri: str) -> bytes:
        with self._explained(uri):
            data: bytes = self._filesystem(uri).cat_file(path_of(uri))
        return data

    def read_bytes_or_none(self, uri: str) -> bytes | None:
        """None where there is no such file."""
        try:
            return self.read_bytes(uri)
        except StorageError as problem:
            if problem.missing:
                return None
            raise

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Writes a small file whole: a reader sees all of it or none."""
        filesystem = self._filesystem(uri)
        if isinstance(filesystem, LocalFileSystem):
            with self.writing(uri) as file:
                file.write(data)
            return
        with self._explained(uri):
            filesystem.pipe_file(path_of(uri), data)

    def create(self, uri: str, data: bytes) -> bool:
        """Writes a small file whole where there is none; False, and nothing done, where there is another.

        Of several that try at once, each with data of its own, one gets True. Where the answer to a request
        is lost, its repetition finds the file: whose it is, what it holds tells. A filesystem that cannot
        promise all that is refused.
        """
        filesystem, path = self._filesystem(uri), path_of(uri)
        if isinstance(filesystem, LocalFileSystem):
            with self._explained(uri), _temporary(Path(path)) as temporary:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    return self.read_bytes_or_none(uri) == data
                _sync_folder(Path(path).parent)
                return True
        put = getattr(filesystem, "_pipe_file", filesystem.pipe_file)
        if "mode" not in inspect.signature(put).parameters:
            raise StorageError(
                f"{without_credentials(uri)}: such storage cannot create a file only where there is none"
            )
        with self._explained(uri):
            for attempt in range(_CREATE_ATTEMPTS):
                try:
                    filesystem.pipe_file(path, data, mode="create")
                    return True
                except Exception as problem:
                    if isinstance(problem, FileExistsError) or _s3_code(problem) == "PreconditionFailed":
                        return self.read_bytes_or_none(uri) == data
                    last = attempt + 1 == _CREATE_ATTEMPTS
                    if last or _s3_code(problem) != "ConditionalRequestConflict":
                        raise
        return False

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
                    temporary = stack.enter_context(_temporary(Path(path), by_way_of))
                    file = self._wrapped(uri, temporary.open("wb"))
                with file:
                    yield file
                    with self._explained(uri):
                        file.sync()
                with self._explained(uri):
                    temporary.replace(path)
                    _sync_folder(Path(path).parent)
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
        """Whether anything is there; fsspec would say no where storage does not answer."""
        return self._type(uri) is not None

    def is_dir(self, uri: str) -> bool:
        with self._explained(uri):
            return bool(self._filesystem(uri).isdir(path_of(uri)))

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
        """False where what lies there is neither nothing nor an ordinary file: a device, a pipe, a link."""
        with self._explained(uri):
            local = isinstance(self._filesystem(uri), LocalFileSystem) and os.path.lexists(path_of(uri))
            return not local or stat.S_ISREG(os.lstat(path_of(uri)).st_mode)

    def is_glob(self, uri: str) -> bool:
        """Whether it has wildcards and is not itself the name of something."""
        return any(sign in path_of(uri) for sign in "*?[") and not self.exists(uri)

    def info(self, uri: str) -> FileInfo:
        with self._explained(uri):
            return file_info(uri, self._filesystem(uri).info(path_of(uri)))

    def find(self, uri: str) -> list[FileInfo]:
        """The files in a directory and below it, by name."""
        with self._explained(uri):
            return _files(uri, self._filesystem(uri).find(path_of(uri), detail=True))

    def glob(self, uri: str, *, below: bool = False) -> list[FileInfo]:
        """The files that match, by name; `below`: also those in directories that match."""
        with self._explained(uri):
            filesystem = self._filesystem(uri)
            found = dict(filesystem.glob(path_of(uri), detail=True))
            for name, info in list(found.items()):
                if below and info["type"] == "directory":
                    found |= filesystem.find(name, detail=True)
            return _files(uri, found)

    def list_files(self, uri: str, *, recursive: bool = False) -> list[str]:
        """URIs of the files in a directory, sorted; empty when there is none."""
        with self._explained(uri):
            try:
                found = self._filesystem(uri).find(path_of(uri), maxdepth=None if recursive else 1)
            except FileNotFoundError:
                return []
            return sorted(uri_of(uri, path) for path in found)

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
        if isinstance(problem, StorageError):
            return str(problem)
        name = type(problem).__name__
        text = self.options.redact(str(problem)) or name
        where = without_credentials(uri)
        if _is_missing(problem, text):
            return f"{where} does not exist"
        if isinstance(problem, PermissionError) or re.search(r"\b(403|Forbidden|AccessDenied)\b", text):
            return f"access to {where} is forbidden with the credentials in use ({text})"
        if "NoCredentials" in name:
            return f"no credentials for {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if name in ("EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError"):
            return f"the endpoint of {where} cannot be reached ({text})"
        return f"{where}: {name}: {text}"

    def _type(self, uri: str) -> str | None:
        """"file", "directory" or "other"; None where nothing is."""
        try:
            with self._explained(uri):
                found: str = self._filesystem(uri).info(path_of(uri))["type"]
        except StorageError as problem:
            if problem.missing or isinstance(problem.__cause__, NotADirectoryError):
                return None
            raise
        return found

    @contextlib.contextmanager
    def _explained(self, uri: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except Exception as problem:  # every protocol has exceptions of its own
            raise self._error(uri, problem) from problem

    def _error(self, uri: str, problem: Exception) -> StorageError:
        return StorageError(self.explain(uri, problem), missing=_is_missing(problem, str(problem)))

    def _wrapped(self, uri: str, file: Any) -> StorageFile:
        return StorageFile(file, lambda problem: self._error(uri, problem))

    def _filesystem(self, uri: str) -> fsspec.AbstractFileSystem:
        protocol = uri.split("://", 1)[0] if is_remote(uri) else "file"
        if protocol in ("s3", "s3a", "file"):
            # s3fs takes a second to import, and `--help` needs no storage.
            from pipeline.storage.filesystems import StrictLocalFileSystem, StrictS3FileSystem

            return (
                StrictLocalFileSystem() if protocol == "file" else StrictS3FileSystem(**self._s3_arguments())
            )
        try:
            return fsspec.filesystem(protocol)
        except (ValueError, ImportError) as problem:
            where = without_credentials(uri)
            raise StorageError(f"{where}: no filesystem for '{protocol}://' ({problem})") from problem

    def _s3_arguments(self) -> dict[str, Any]:
        options = self.options
        client: dict[str, Any] = {}
        if options.region:
            client["region_name"] = options.region
        return {
            "key": options.key.get_secret_value() if options.key else None,
            "secret": options.secret.get_secret_value() if options.secret else None,
            "token": options.token.get_secret_value() if options.token else None,
            "anon": options.anonymous,
            "endpoint_url": options.endpoint_url,
            "client_kwargs": client,
            "config_kwargs": {"connect_timeout": 10, "retries": {"max_attempts": 5, "mode": "standard"}},
            # Several processes write the same places: a cached listing would be a lie.
            "use_listings_cache": False,
        }


def is_remote(uri: str) -> bool:
    """Whether it names a place of a protocol, not a local path."""
    return "://" in uri


def path_of(uri: str) -> str:
    """The path a filesystem wants: without the protocol, but for http(s), whose filesystem wants it."""
    if uri.startswith(("http://", "https://")):
        return uri
    return uri.split("://", 1)[1] if is_remote(uri) else uri


def uri_of(like: str, path: str) -> str:
    """`path` of the filesystem that `like` lives in, as a URI again."""
    if is_remote(path):
        return path
    return f"{like.split('://', 1)[0]}://{path}" if is_remote(like) else path


def join(base: str, *parts: str) -> str:
    return "/".join([base.rstrip("/"), *parts])


def resolve(base: str, path: str) -> str:
    """Where `path`, as written in the file `base`, leads: relative paths start at the file's directory."""
    if is_remote(path) or path.startswith("/"):
        return path
    # Object stores take "." and ".." literally, so they are resolved here.
    return uri_of(base, posixpath.normpath(posixpath.join(posixpath.dirname(path_of(base)), path)))


def without_credentials(uri: str) -> str:
    """`uri` with any user:password@ taken out."""
    return re.sub(r"(?<=://)[^/?#]*@", "***@", uri, count=1)


def _is_missing(problem: Exception, text: str) -> bool:
    if isinstance(problem, StorageError):
        return problem.missing
    return isinstance(problem, FileNotFoundError) or "NoSuchBucket" in text


def _s3_code(problem: Exception) -> str | None:
    """S3's own code of an error that s3fs has translated."""
    response = getattr(problem.__cause__ or problem, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _sync_folder(folder: Path) -> None:
    """So that a name in it outlives a loss of power, as the bytes of the file do."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _temporary(target: Path, by_way_of: str | None = None) -> Iterator[Path]:
    """A name to write to, beside `target` or in another directory; no such file afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
    path = target.with_name(f".{unique}") if by_way_of is None else Path(by_way_of, unique)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _files(uri: str, found: Mapping[str, Mapping[str, Any]]) -> list[FileInfo]:
    files = ((path, info) for path, info in sorted(found.items()) if info["type"] == "file")
    return [file_info(uri_of(uri, path), info) for path, info in files]
