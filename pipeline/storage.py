"""URIs to filesystems: local paths, s3:// and whatever else fsspec speaks. The only file that knows."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pyarrow.fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pipeline.errors import JobError

_FROM_ENVIRONMENT = {
    "endpoint_url": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "key": ("AWS_ACCESS_KEY_ID",),
    "secret": ("AWS_SECRET_ACCESS_KEY",),
    "token": ("AWS_SESSION_TOKEN",),
}
_SECRETS = ("key", "secret", "token")


class StorageOptions(BaseModel):
    """How to reach s3://; what is unset comes from the usual AWS_* environment, profiles and roles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint_url: str | None = Field(None, description="S3 endpoint, for MinIO, Ceph, R2 and the like")
    region: str | None = Field(None, description="S3 region")
    key: SecretStr | None = Field(None, description="S3 access key id (better left to the environment)")
    secret: SecretStr | None = Field(
        None, description="S3 secret access key (better left to the environment)"
    )
    token: SecretStr | None = Field(None, description="S3 session token (better left to the environment)")
    anonymous: bool = Field(False, description="read public buckets without credentials")

    def with_environment(self, environment: Mapping[str, str] = os.environ) -> StorageOptions:
        """Fills unset fields from AWS_* variables, so that workers on other nodes get the driver's access."""
        update: dict[str, Any] = {}
        for field, names in _FROM_ENVIRONMENT.items():
            # Key, secret and token belong together: never mix a pair from two sources.
            if getattr(self, field) is not None or (field in _SECRETS and self.key is not None):
                continue
            value = next((environment[name] for name in names if environment.get(name)), None)
            if value is not None:
                update[field] = SecretStr(value) if field in _SECRETS else value
        return self.model_copy(update=update)

    def redact(self, text: str) -> str:
        """`text` without any of the credentials."""
        for field in _SECRETS:
            secret: SecretStr | None = getattr(self, field)
            if secret is not None and secret.get_secret_value():
                text = text.replace(secret.get_secret_value(), "***")
        return text


class StorageError(OSError):
    """What storage says, in a person's words and without credentials; `missing` where nothing is there."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


@dataclass(frozen=True)
class FileInfo:
    """A file as a listing tells of it."""

    uri: str
    size: int


@dataclass(frozen=True)
class Storage:
    """Opens any URI; picklable, so that tasks on other nodes open the same."""

    options: StorageOptions

    def normalise(self, uri: str) -> str:
        """One spelling per place: absolute local paths, else URIs; refuses credentials inside them."""
        if "://" not in uri:
            return str(Path(os.path.expanduser(uri)).absolute())
        if uri.startswith("file://"):
            return str(Path(urlsplit(uri).path).absolute())
        if without_credentials(uri) != uri:
            raise JobError(
                f"{without_credentials(uri)} carries credentials in the URI, which logs would repeat; "
                "give them through the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) instead."
            )
        return uri

    def filesystem(self, uri: str) -> fsspec.AbstractFileSystem:
        protocol = uri.split("://", 1)[0] if "://" in uri else "file"
        if protocol in ("s3", "s3a"):
            return fsspec.filesystem("s3", **self._s3_arguments())
        try:
            return fsspec.filesystem(protocol)
        except (ValueError, ImportError) as problem:
            raise JobError(f"{uri}: no filesystem for '{protocol}://' ({problem}).") from problem

    def open(self, uri: str, mode: str = "rb", **arguments: Any) -> Any:
        return self.filesystem(uri).open(path_of(uri), mode, **arguments)

    @contextlib.contextmanager
    def _telling(self, uri: str) -> Iterator[None]:
        """Turns what any protocol raises into StorageError."""
        try:
            yield
        except (JobError, StorageError):
            raise
        except Exception as problem:
            missing = isinstance(problem, FileNotFoundError)
            raise StorageError(self.explain(uri, problem), missing=missing) from problem

    def read_bytes(self, uri: str) -> bytes:
        with self._telling(uri):
            data: bytes = self.filesystem(uri).cat_file(path_of(uri))
            return data

    def create(self, uri: str, data: bytes) -> bool:
        """Writes a small file whole, unless there is one already: False then."""
        filesystem, path = self.filesystem(uri), path_of(uri)
        with self._telling(uri):
            try:
                if not isinstance(filesystem, LocalFileSystem):
                    filesystem.pipe_file(path, data, mode="create")
                    return True
                target = Path(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
                temporary.write_bytes(data)
                try:
                    os.link(temporary, target)
                finally:
                    temporary.unlink()
            except FileExistsError:
                return False
            return True

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Writes a small file whole: a reader sees all of it or none."""
        with self._telling(uri):
            filesystem, path = self.filesystem(uri), path_of(uri)
            if isinstance(filesystem, LocalFileSystem):
                target = Path(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
                temporary.write_bytes(data)
                temporary.replace(target)
            else:
                filesystem.pipe_file(path, data)

    @contextlib.contextmanager
    def writing(self, uri: str) -> Iterator[Any]:
        """A binary file to write; a reader sees all of it when the block is done, nothing when it fails."""
        filesystem, path = self.filesystem(uri), path_of(uri)
        if isinstance(filesystem, LocalFileSystem):
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                with temporary.open("wb") as handle:
                    yield handle
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        else:
            handle = filesystem.open(path, "wb", autocommit=False)
            try:
                yield handle
                handle.close()
            except BaseException:
                handle.discard()
                raise
            handle.commit()

    def exists(self, uri: str) -> bool:
        with self._telling(uri):
            return bool(self.filesystem(uri).exists(path_of(uri)))

    def info(self, uri: str) -> FileInfo:
        with self._telling(uri):
            return FileInfo(uri, int(self.filesystem(uri).size(path_of(uri)) or 0))

    def is_glob(self, uri: str) -> bool:
        """Whether it has wildcards and is not itself the name of something."""
        return any(sign in path_of(uri) for sign in "*?[") and not self.exists(uri)

    def is_dir(self, uri: str) -> bool:
        with self._telling(uri):
            return bool(self.filesystem(uri).isdir(path_of(uri)))

    def glob(self, uri: str) -> list[FileInfo]:
        """The files that match, by name."""
        with self._telling(uri):
            matches = sorted(self.filesystem(uri).glob(path_of(uri), detail=True).items())
            return [
                FileInfo(uri_of(uri, path), int(info["size"] or 0))
                for path, info in matches
                if info["type"] == "file"
            ]

    def list_files(self, uri: str, *, recursive: bool = False) -> list[str]:
        """URIs of the files in a directory, sorted; empty when there is none."""
        filesystem = self.filesystem(uri)
        with self._telling(uri):
            try:
                found = filesystem.find(path_of(uri), maxdepth=None if recursive else 1)
            except FileNotFoundError:
                return []
        return sorted(uri_of(uri, path) for path in found)

    def remove(self, uri: str, *, recursive: bool = False) -> None:
        with self._telling(uri), contextlib.suppress(FileNotFoundError):
            self.filesystem(uri).rm(path_of(uri), recursive=recursive)

    def arrow_filesystem(self, uri: str) -> pyarrow.fs.FileSystem:
        """The same filesystem for Arrow and Ray Data."""
        filesystem = self.filesystem(uri)
        if isinstance(filesystem, LocalFileSystem):
            return pyarrow.fs.LocalFileSystem()
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))

    def explain(self, uri: str, problem: Exception) -> str:
        """A storage failure in a person's words, without credentials."""
        if isinstance(problem, StorageError):
            return str(problem)
        name = type(problem).__name__
        text = self.options.redact(str(problem)) or name
        where = without_credentials(uri)
        if isinstance(problem, FileNotFoundError) or "NoSuchBucket" in text:
            return f"{where} does not exist"
        if isinstance(problem, PermissionError) or re.search(r"\b(403|Forbidden|AccessDenied)\b", text):
            return f"access to {where} is forbidden with the credentials in use ({text})"
        if "NoCredentials" in name:
            return f"no credentials for {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if name in ("EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError"):
            return f"the endpoint of {where} cannot be reached ({text})"
        return f"{where}: {name}: {text}"

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
    return uri.split("://", 1)[1] if "://" in uri else uri


def uri_of(like: str, path: str) -> str:
    """`path` of the filesystem that `like` lives in, as a URI again."""
    if "://" in path:
        return path
    return f"{like.split('://', 1)[0]}://{path}" if "://" in like else path


def join(base: str, *parts: str) -> str:
    return "/".join([base.rstrip("/"), *parts])


def without_credentials(uri: str) -> str:
    """`uri` with any user:password@ taken out."""
    return re.sub(r"(?<=://)[^/?#]*@", "***@", uri, count=1)
