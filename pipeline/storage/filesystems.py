"""Which filesystems are opened: local files, object stores, and web servers that somebody allowed.

Paths and URIs also come from manifests, so whatever is not named here is refused: other protocols of fsspec
fetch from anywhere. In fsspec's own filesystems a folder that cannot be listed is an empty one; here it is an
error, since a table whose records cannot be listed would be written twice.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any

import fsspec
import pyarrow.fs as pafs
import s3fs
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.failures import StorageError
from pipeline.storage.local import refuse_special
from pipeline.storage.places import HTTP, HUB, HUB_HOST, S3, scheme_of
from pipeline.storage.secrets import without_credentials

OTHER_STORES = frozenset({"gs", "gcs", "az", "abfs", "abfss"})
_WHOLE_BYTES = 8 << 20  # files up to this size are fetched in one go, and kept in memory
_LONGEST = 4 << 30  # of a file that a web server gives no parts of: some have no end
_CHUNK = 1 << 20


def filesystem_of(
    uri: str, s3_arguments: Mapping[str, Any], hosts: Collection[str]
) -> fsspec.AbstractFileSystem:
    """The filesystem of a URI.

    Args:
        hosts: web servers that may be asked, with a port or for any.

    Raises:
        StorageError: there is none, or its host is not allowed.
    """
    scheme, where = scheme_of(uri), without_credentials(uri)
    if scheme in (None, "file"):
        return StrictLocalFileSystem()
    if scheme in S3:
        return StrictS3FileSystem(**s3_arguments)
    if scheme in HTTP:
        filesystem = AllowedHttpFileSystem(tuple(sorted(hosts)))
        filesystem.check(uri)
        return filesystem
    if scheme == HUB and HUB_HOST not in hosts:
        message = f"{where} is on the Hub, which is not allowed; allow it with --allow-hosts {HUB_HOST}"
        raise StorageError(message, refused=True)
    if scheme in OTHER_STORES or scheme == HUB:
        try:
            return fsspec.filesystem(scheme)
        except (ValueError, ImportError) as problem:
            raise StorageError(f"{where}: no filesystem for '{scheme}://' ({problem})") from problem
    raise StorageError(
        f"{where}: no filesystem for '{scheme}://'; known are local paths, file://, s3://, "
        f"{', '.join(f'{store}://' for store in sorted(OTHER_STORES))}, hf://datasets/…, and http(s):// with "
        "--allow-hosts",
        refused=True,
    )


def _raise_unless_missing(problem: OSError) -> None:
    if not isinstance(problem, FileNotFoundError):
        raise problem


def arrow_filesystem(uri: str, s3_arguments: Mapping[str, Any], hosts: Collection[str]) -> pafs.FileSystem:
    """`filesystem_of` for libraries that take Arrow's filesystems, and their paths without a scheme."""
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem_of(uri, s3_arguments, hosts)))


class StrictLocalFileSystem(LocalFileSystem):
    # `find` is a walk, and a walk of a subfolder comes here again.
    def walk(self, path: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return iter(super().walk(path, *args, **{"on_error": _raise_unless_missing, **kwargs}))

    def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        if mode == "rb":
            refuse_special(path)
        return super()._open(path, mode, *args, **kwargs)


class StrictS3FileSystem(s3fs.S3FileSystem):
    async def _walk(self, path: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for folder in super()._walk(path, *args, **{"on_error": _raise_unless_missing, **kwargs}):
            yield folder

    async def _bulk_delete(self, pathlist: list[str], **kwargs: Any) -> list[str]:
        """One by one: many at once are answered with 200 also where some of them stay."""
        await asyncio.gather(*(self._rm_file(path) for path in pathlist))
        return pathlist

    def split_path(self, path: str) -> tuple[str, str, None]:
        """Without versions: a key may hold "?versionId=" like any other text."""
        bucket, _, _ = super().split_path(path)
        stripped = path.removeprefix("s3://").removeprefix("s3a://").lstrip("/")
        return bucket, stripped.removeprefix(bucket).removeprefix("/"), None


class AllowedHttpFileSystem(HTTPFileSystem):
    """The web servers that `--allow-hosts` names; redirects lead to no others."""

    def __init__(self, hosts: tuple[str, ...], **kwargs: Any) -> None:
        self._hosts = frozenset(hosts)
        super().__init__(client_kwargs={"middlewares": (self._ask,)}, **kwargs)

    def check(self, url: str) -> None:
        """Raises StorageError where the host is not allowed."""
        asked = self.encode_url(url)
        if self._hosts.isdisjoint({asked.host, f"{asked.host}:{asked.port}"}):
            where = f"{asked.host}:{asked.port}" if asked.explicit_port else asked.host
            raise StorageError(
                f"{without_credentials(url)} is on a web server that is not allowed; "
                f"allow it with --allow-hosts {where}",
                refused=True,
            )

    async def _ask(self, request: Any, handler: Any) -> Any:
        self.check(str(request.url))
        return await handler(request)

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """A small file, and one of a server that gives no parts, comes whole."""
        file = super().open(path, mode, *args, **kwargs)
        if file.seekable() and (file.size or 0) > _WHOLE_BYTES:
            try:
                file.seek(-1, io.SEEK_END)
                file.read(1)
                file.seek(0)
                return file
            except ValueError:  # fsspec's word for such a server
                file.close()
                file = super().open(path, mode, block_size=0)
        return _whole(file, path)

    async def _isdir(self, path: str) -> bool:
        """A page with links is no folder."""
        return False


class _Whole(tempfile.SpooledTemporaryFile[bytes]):
    size = 0


def _whole(file: Any, url: str) -> _Whole:
    held = _Whole(_WHOLE_BYTES)
    with file:
        while chunk := file.read(_CHUNK):
            held.write(chunk)
            if held.tell() > _LONGEST:
                raise StorageError(
                    f"{without_credentials(url)} is longer than {_LONGEST >> 30} GiB, and comes in one piece",
                    refused=True,
                )
    held.size = held.tell()
    held.seek(0)
    return held
