"""The members of a tar archive, one after another; of a damaged one all that can be found."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pipeline.storage import StorageFile

_LARGEST = 8**11 - 1  # bytes: the largest size that a header tells without an extended one
_MOST_SPARSE_BYTES = 2 << 30  # holes cost nothing in the shard, so a damaged size is not seen by its end
_PIECE_BYTES = 8 << 20
_POSIX = b"ustar\0"


@dataclass
class Damage:
    """The first damage met in a shard that is read on all the same; None so far."""

    first: str | None = None

    def note(self, damage: str) -> None:
        self.first = self.first or damage


class Member(NamedTuple):
    """A file, or a link to one: `link` is then the name that it leads to.

    `place` is where the data begins, or tarfile's own record of what lies in pieces or in a stream.
    """

    name: str
    size: int
    place: int | tarfile.TarInfo
    link: str | None = None


class NotAtHandError(Exception):
    """A member that nothing is wrong with, and that cannot be had."""


class Archive:
    """An open tar, and an iterator over its files and links, but for those of the archiver's own making.

    Attributes:
        seekable: a member may be read at any time; else, in a compressed shard, before the next one is asked
            for.
    """

    def __init__(self, handle: StorageFile, damage: Damage) -> None:
        stream = _decompressed(handle)
        self.seekable = stream is handle
        self._handle = handle
        end = handle.seek(0, io.SEEK_END) if self.seekable else None
        self._end = end or 0
        handle.seek(0)
        self._tar = tarfile.open(  # noqa: SIM115 (the handle is closed by who opened it)
            fileobj=stream,
            mode="r:" if self.seekable else "r|",
            ignore_zeros=True,
            encoding="utf-8",
            errors="surrogateescape",
            tarinfo=_watching(damage, end),
        )
        self._known: dict[str, Member] = {}  # for links

    def __iter__(self) -> Iterator[Member]:
        while (found := self._tar.next()) is not None:
            # Else the headers of the whole shard stay in memory.
            self._tar.members = []  # type: ignore[attr-defined]
            name = _text(posixpath.normpath(found.name))
            if _is_hidden(name):
                continue
            if found.isfile():
                in_one_piece = self.seekable and not found.issparse()
                member = Member(name, found.size, found.offset_data if in_one_piece else found)
            elif found.islnk() or found.issym():
                beside = posixpath.dirname(name) if found.issym() else ""
                target = posixpath.normpath(posixpath.join(beside, _text(found.linkname)))
                member = Member(name, 0, found.offset, target)
            else:
                continue
            if self.seekable and member.link != name:
                self._known[name] = member
            yield member

    def read(self, member: Member, most: int | None = None) -> bytearray:
        """Its bytes, or those of the file that it links to.

        Raises:
            NotAtHandError: it leads to no file, or has more than `most` bytes.
            tarfile.ReadError: the shard ends inside it.
        """
        file = self._target(member)
        if most is not None and file.size > most:
            raise NotAtHandError(f"{member.name} has {file.size} bytes, more than {most}")
        if isinstance(file.place, int):
            if file.place + file.size > self._end:  # what a damaged header promises is never read
                raise _cut(file, max(0, self._end - file.place))
            self._handle.seek(file.place)
            return _read(self._handle, file)
        if file.place.issparse() and file.size > _MOST_SPARSE_BYTES:
            raise tarfile.ReadError(f"{file.name}: a sparse file of {file.size} bytes")
        data = self._tar.extractfile(file.place)
        assert data is not None
        return _read(data, file)

    def _target(self, member: Member) -> Member:
        seen = set()
        while member.link is not None:
            if member.link in seen or member.link not in self._known:
                raise NotAtHandError(
                    f"a link to {member.link}, which is not in the shard, is still to come in one that is "
                    "read as a stream, or cannot be read again because the shard is compressed"
                )
            seen.add(member.link)
            member = self._known[member.link]
        return member


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _read(file: _Readable, member: Member) -> bytearray:
    """In pieces, so that no more than the member is in memory; what it promises may not be there."""
    data = bytearray()
    while len(data) < member.size:
        piece = file.read(min(_PIECE_BYTES, member.size - len(data)))
        if not piece:
            raise _cut(member, len(data))
        data += piece
    return data


def _cut(member: Member, size: int) -> tarfile.ReadError:
    return tarfile.ReadError(f"{member.name} ends after {size} of {member.size} bytes")


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
        def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
            member = super().frombuf(buf, encoding, errors)
            if buf[257:263] != _POSIX:  # GNU keeps times where POSIX has the beginning of a long name
                name = bytes(buf[:100]).split(b"\0")[0].decode(encoding, errors)
                member.name = name.rstrip("/") if member.isdir() else name
            return member

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
            if end is not None:  # no file can be asked for a place beyond all files
                tarfile_.offset = min(tarfile_.offset, end + 1)
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


def _text(name: str) -> str:
    """A name with bytes that are no UTF-8 is Latin-1: a replacement character would make two names one."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    return name


def _is_hidden(name: str) -> bool:
    """Files of the archiver's own making, such as __MACOSX/._clip.wav."""
    return any(part.startswith((".", "__")) and part not in (".", "..") for part in name.split("/"))
