"""A file beside a shard that tells of its clips, and what it tells of each."""

from __future__ import annotations

import codecs
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.storage import FileInfo, Storage, name_of

if TYPE_CHECKING:
    from pipeline.corpus.clips import Clip, Shard

TEXT_BYTES = 8 << 20  # a larger file beside one recording is no transcript
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Beside:
    """A file that tells of a shard's clips. It travels to the workers with the shard.

    Attributes:
        version: as that of a shard.
    """

    uri: str
    version: str

    def describe(self, clips: Iterator[Clip], shard: Shard, storage: Storage) -> Iterator[Clip]:
        """The shard's clips with what is told of them.

        Raises:
            StorageError: the file was not delivered.
        """
        return clips

    def samples(self, storage: Storage) -> list[dict[str, Any]]:
        """Some of the values that it tells, where the shard's first clips do not show them."""
        return []


@dataclass(frozen=True)
class Listing:
    """What an input holds.

    Attributes:
        others: the visible files that are no audio themselves, by URI.
        shards: of all formats.
    """

    others: Mapping[str, FileInfo]
    shards: Sequence[Shard]
    storage: Storage

    @cached_property
    def folders(self) -> dict[str, list[FileInfo]]:
        """`others` by their folders."""
        found: dict[str, list[FileInfo]] = defaultdict(list)
        for uri, info in self.others.items():
            found[folder_of(uri)].append(info)
        return found

    def beside(self, uri: str, name: str) -> FileInfo | None:
        """The file of this name in the folder of another."""
        return self.others.get(f"{folder_of(uri)}/{name}")


def folder_of(uri: str) -> str:
    return uri.rpartition("/")[0]


def stem_of(uri: str) -> str:
    """The last part of a URI without its ending."""
    return posixpath.splitext(name_of(uri))[0]


def decoded(data: bytes) -> str:
    """Text in UTF-8 or UTF-16, without its byte order mark; raises UnicodeDecodeError."""
    return data.decode("utf-16") if data.startswith(_UTF16) else data.decode("utf-8-sig")
