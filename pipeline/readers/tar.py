"""WebDataset tar shards, read as a stream: consecutive members of one key form a sample."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.errors import ClipError, Code, Stage
from pipeline.readers.common import broken, clip_id, failure, shard_row, tables
from pipeline.schema import Clip
from pipeline.shards import AUDIO_EXTENSIONS, Shard
from pipeline.storage import Storage

# Transcripts and metadata beyond this are not what their extension says.
_METADATA_BYTES = 8 << 20
_OTHER_BYTES = 64 << 10


@dataclass
class _Sample:
    key: str
    audio: bytes | None = None
    cut: bool = False  # the shard ended inside it
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Trouble:
    """What went wrong with the shard so far; reading goes on where it can."""

    damage: str | None = None
    problem: Exception | None = None

    def note(self, damage: str) -> None:
        self.damage = self.damage or damage


def read_tar(shard: Shard, storage: Storage, carried: pa.Schema) -> Iterator[pa.Table]:
    """The shard's samples in order; of a damaged shard all that can be found, and one row for the shard."""
    trouble = _Trouble()
    yield from tables(_clips(shard, storage, trouble), carried)
    if trouble.problem is not None:
        yield shard_row(shard, failure(shard, storage, trouble.problem), carried)
    elif trouble.damage is not None:
        yield shard_row(shard, broken(f"{shard.name} is damaged: {trouble.damage}"), carried)


def tar_samples(shard: Shard, storage: Storage, limit: int = 8) -> list[dict[str, Any]]:
    """The values of the first `limit` samples, without their audio; fewer where the shard is damaged."""
    return [sample.values for sample in islice(_samples(shard, storage, _Trouble()), limit)]


def _clips(shard: Shard, storage: Storage, trouble: _Trouble) -> Iterator[Clip]:
    keys: Counter[str] = Counter()
    for sample in _samples(shard, storage, trouble):
        error: ClipError | None = None
        if sample.cut and trouble.problem is not None:
            error = failure(shard, storage, trouble.problem)
            if error.code is Code.BROKEN_SHARD:
                error = ClipError(Stage.READ, Code.TRUNCATED, "the shard ends inside the sample")
        elif sample.audio is None:
            wanted = ", ".join(sorted(AUDIO_EXTENSIONS))
            error = ClipError(Stage.READ, Code.NO_AUDIO, f"the sample has no audio member ({wanted})")
        yield Clip(
            clip_id(shard, _unique(sample.key, keys)),
            shard.uri,
            audio=None if error else sample.audio,
            error=error,
            values=sample.values,
        )


def _unique(key: str, keys: Counter[str]) -> str:
    """`key`, or with "~2", "~3" appended when the shard had it before."""
    name = key
    while name in keys:
        keys[key] += 1
        name = f"{key}~{keys[key]}"
    keys[name] = 1
    return name


def _samples(shard: Shard, storage: Storage, trouble: _Trouble) -> Iterator[_Sample]:
    """Samples until the shard ends or cannot be read further; why is left in `trouble`."""
    sample: _Sample | None = None
    try:
        with storage.open(shard.uri) as handle:
            for member, archive in _members(_decompressed(handle), trouble):
                key, extension = _split(member.name)
                is_audio = extension.rsplit(".", 1)[-1] in AUDIO_EXTENSIONS
                # A second audio member of a key is a clip of its own (names like "speaker.1.wav").
                if sample is None or sample.key != key or (is_audio and sample.audio is not None):
                    if sample is not None:
                        yield sample
                    sample = _Sample(key)
                if is_audio:
                    sample.audio = _payload(archive, member)
                elif member.size <= (_METADATA_BYTES if extension in ("txt", "json") else _OTHER_BYTES):
                    sample.values.update(_values(extension, _payload(archive, member)))
    except Exception as problem:
        trouble.problem = problem
        if sample is not None:
            sample.cut = sample.audio is None
    if sample is not None:
        yield sample


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


def _members(stream: Any, trouble: _Trouble) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    with tarfile.open(
        fileobj=stream, mode="r|", ignore_zeros=True, errors="replace", tarinfo=_watching(trouble)
    ) as archive:
        while (member := archive.next()) is not None:
            # Else the headers of the whole shard stay in memory.
            archive.members = []  # type: ignore[attr-defined]
            if member.isfile() and not _is_hidden(member.name):
                yield member, archive


def _watching(trouble: _Trouble) -> type[tarfile.TarInfo]:
    """A TarInfo that notes the header blocks which `ignore_zeros` skips in silence."""
    ended = False  # the last block seen belongs to the end-of-archive marker

    class Watching(tarfile.TarInfo):
        @classmethod
        def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Any:
            nonlocal ended
            stream: Any = tarfile_.fileobj
            at = stream.tell()
            try:
                member = super().fromtarfile(tarfile_)
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                ended = True
                raise
            except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
                if not ended:
                    trouble.note(f"it ends at byte {at} without an end-of-archive marker")
                raise
            except tarfile.TruncatedHeaderError:  # type: ignore[attr-defined]
                trouble.note(f"it ends inside the header at byte {at}")
                raise
            except (tarfile.HeaderError, ValueError, LookupError) as problem:
                trouble.note(f"the header at byte {at} is invalid ({problem})")
                # The one error that tarfile goes on after, from the next block; it adds that block itself.
                tarfile_.offset = stream.tell() - tarfile.BLOCKSIZE
                raise tarfile.InvalidHeaderError(str(problem)) from problem  # type: ignore[attr-defined]
            ended = False
            return member

    return Watching


def _payload(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) < member.size:
        raise tarfile.ReadError(f"{member.name} ends after {len(data)} of {member.size} bytes")
    return data


def _split(name: str) -> tuple[str, str]:
    """(key, extension) as WebDataset has them: the key is all up to the first dot of the base name."""
    directory, base = posixpath.split(name.removeprefix("./"))
    stem, _, extension = base.partition(".")
    return posixpath.join(directory, stem), extension.lower()


def _is_hidden(name: str) -> bool:
    """Files of the archiver's own making, such as __MACOSX/._clip.wav."""
    return any(part.startswith((".", "__")) and part not in (".", "..") for part in name.split("/"))


def _values(extension: str, data: bytes) -> dict[str, Any]:
    """The values that a member beside the audio holds; none if it is not what its extension says."""
    try:
        text = data.decode()
        if extension != "json":
            return {"text" if extension == "txt" else extension: text.strip()}
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {extension: loaded}
