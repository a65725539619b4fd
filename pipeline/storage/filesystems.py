"""fsspec's filesystems, but a folder that cannot be listed is an error.

fsspec takes such a folder for an empty one; a table whose records cannot be listed would be written twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import s3fs
from fsspec.implementations.local import LocalFileSystem


def _raise_unless_missing(problem: OSError) -> None:
    if not isinstance(problem, FileNotFoundError):
        raise problem


class StrictLocalFileSystem(LocalFileSystem):
    # `find` and `glob` are walks, and a walk of a subfolder comes here again.
    def walk(self, path: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return iter(super().walk(path, *args, **{"on_error": _raise_unless_missing, **kwargs}))


class StrictS3FileSystem(s3fs.S3FileSystem):
    async def _walk(self, path: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for folder in super()._walk(path, *args, **{"on_error": _raise_unless_missing, **kwargs}):
            yield folder

    async def _bulk_delete(self, pathlist: list[str], **kwargs: Any) -> list[str]:
        """One by one: many at once are answered with 200 also where some of them stay."""
        await asyncio.gather(*(self._rm_file(path) for path in pathlist))
        return pathlist
