"""The members of a tar archive, read as a stream; of a damaged one all that can be found."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.storage import StorageFile

_LARGEST = 8**11 - 1  # bytes: the largest size that a header tells without an extended one


@dataclass
class Damage:
    """The first damage met in a shard that is read on all the same; None so far."""

    first: str | None = None

    def note(self, damage: str) -> None:
        self.first = self.first or damage


@dataclass(frozen=True)
class Member:
    """A file, or a link to one. `read` gives its bytes, before the next member is asked for.

    `read` is None where `link`, the name of another member, leads to none that can still be read: the stream
    does not go back in a compressed shard, nor does it know what is yet to come.
    """

    name: str
    size: int
    read: Callable[[], bytes] | None
    link: str | None = None


def members(handle: StorageFile, damage: Damage) -> Iterator[Member]:
    """All files and links, but for those of the archiver's own making."""
    stream = _decompressed(handle)
    end = handle.seek(0, io.SEEK_END) if stream is handle else None
    handle.seek(0)
    places: dict[str, tuple[int, int]] = {}  # offset and size of the data, for links
    with tarfile.open(
        fileobj=stream, mode="r|", ignore_zeros=True, errors="replace", tarinfo=_watching(damage, end)
    ) as archive:
        while (member := archive.next()) is not None:
            # Else the headers of the whole shard stay in memory.
            archive.members = []  # type: ignore[attr-defined]
            name = posixpath.normpath(member.name)
            if _is_hidden(name):
                continue
            if member.isfile():
                if end is not None and not member.issparse():
                    places[name] = (member.offset_data, member.size)
                yield Member(member.name, member.size, partial(_payload, archive, member, end))
            elif member.islnk() or member.issym():
                beside = posixpath.dirname(name) if member.issym() else ""
                target = posixpath.normpath(posixpath.join(beside, member.linkname))
                if target not in places:
                    yield Member(member.name, 0, None, target)
                    continue
                places[name] = offset, size = places[target]
                yield Member(member.name, size, partial(_elsewhere, handle, offset, size), target)


class _Decompressed:
    """A compressed stream that hands out what it has before it reports damage."""

    def __init__(self, file: gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        # read() would drop the bytes it gathered before the damage.
        return self._file.read1(size)


def _decompressed(handle: Any) -> Any:
    # tarfile's own streaming decompression takes a gzip file cut short for a complete one.
    magic = handle.read(6)
    handle.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return _Decompressed(gzip.GzipFile(fileobj=handle))
    if magic.startswith(b"BZh"):
        return _Decompressed(bz2.BZ2File(handle))
    if magic.startswith(b"\xfd7zXZ"):
        return _Decompressed(lzma.LZMAFile(handle))
    return handle


def _watching(damage: Damage, end: int | None) -> type[tarfile.TarInfo]:
    """A TarInfo that notes the header blocks which `ignore_zeros` skips in silence, and sizes that are wrong.

    `end` is the archive's size, where it is known.
    """
    ended = False  # the last block seen belongs to the end-of-archive marker

    class Watching(tarfile.TarInfo):
        @classmethod
        def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Any:
            nonlocal ended
            stream: Any = tarfile_.fileobj
            at = stream.tell()
            try:
                member = super().fromtarfile(tarfile_)
                cls._settle_size(member, tarfile_)
                if member.size < 0:
                    raise tarfile.HeaderError(f"a size of {member.size} bytes")
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                ended = True
                raise
            except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
                if not ended:
                    damage.note(f"it ends at byte {at} without an end-of-archive marker")
                raise
            except tarfile.TruncatedHeaderError:  # type: ignore[attr-defined]
                damage.note(f"it ends inside the header at byte {at}")
                raise
            except (tarfile.HeaderError, ValueError, LookupError) as problem:
                damage.note(f"the header at byte {at} is invalid ({problem})")
                # The one error that tarfile goes on after, from the next block; it adds that block itself.
                tarfile_.offset = stream.tell() - tarfile.BLOCKSIZE
                raise tarfile.InvalidHeaderError(str(problem)) from problem  # type: ignore[attr-defined]
            ended = False
            return member

        @staticmethod
        def _settle_size(member: Any, tarfile_: tarfile.TarFile) -> None:
            """A header has a checksum, the extended one before it has none, and its size is taken blindly."""
            # An extended header is read by a call of its own, around the one that reads the header.
            own: int = member.__dict__.setdefault("own_size", member.size)
            extended = member.size
            if extended == own or member.issparse():
                return
            largest = _LARGEST if end is None else end - member.offset_data
            if 0 < own < _LARGEST or not 0 <= extended <= largest:
                damage.note(
                    f"the extended header of {member.name} gives it {extended} bytes, its header {own}"
                )
                member.size = own
                blocks = -(-own // tarfile.BLOCKSIZE)
                tarfile_.offset = member.offset_data + blocks * tarfile.BLOCKSIZE

    return Watching


def _payload(archive: tarfile.TarFile, member: tarfile.TarInfo, end: int | None) -> bytes:
    there = member.size if end is None else min(member.size, end - member.offset_data)
    if there == member.size:
        file = archive.extractfile(member)
        data = file.read() if file is not None else b""
        there = len(data)
    if there < member.size:
        raise tarfile.ReadError(f"{member.name} ends after {there} of {member.size} bytes")
    return data


def _elsewhere(handle: StorageFile, offset: int, size: int) -> bytes:
    at = handle.tell()
    handle.seek(offset)
    data = handle.read(size)
    handle.seek(at)
    if len(data) < size:
        raise tarfile.ReadError(f"a member ends after {len(data)} of {size} bytes")
    return data


def _is_hidden(name: str) -> bool:
    """Files of the archiver's own making, such as __MACOSX/._clip.wav."""
    return any(part.startswith((".", "__")) and part not in (".", "..") for part in name.split("/"))
