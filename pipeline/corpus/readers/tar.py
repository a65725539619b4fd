"""WebDataset tar shards, read as a stream: consecutive members of one key form a sample."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.corpus.clips import Clip, Shard
from pipeline.corpus.readers.audio import AUDIO_EXTENSIONS
from pipeline.corpus.readers.base import DamagedShardError, Reader, shard_error
from pipeline.corpus.readers.tar_stream import Damage, Member, members
from pipeline.errors import ClipError, Code, Stage
from pipeline.storage import StorageFile

_METADATA = ("txt", "json")
# Transcripts and metadata beyond this are not what their extension says.
_METADATA_BYTES = 8 << 20
_OTHER_BYTES = 64 << 10


class TarReader(Reader):
    """Tars, compressed or not. Of a damaged one all that can be found is read."""

    name = "tar"
    endings = (".tar", ".tar.gz", ".tgz")

    @property
    def about(self) -> str:
        return "*.tar(.gz)"

    def clips(self, file: StorageFile, shard: Shard, slice: None) -> Iterator[Clip]:
        damage = Damage()
        keys = Counter([""])  # the key of the row that tells of the shard as a whole
        for sample in _samples(file, damage):
            yield _clip(sample, _unique(sample.key, keys), shard)
            if sample.problem is not None:
                raise sample.problem
        if damage.first is not None:
            raise DamagedShardError(damage.first)


@dataclass
class _TarSample:
    key: str
    audio: bytes | None = None
    link: str | None = None  # the member that the audio is a link to
    problem: Exception | None = None  # the shard could not be read on from here
    values: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def has_audio(self) -> bool:
        return self.audio is not None or self.link is not None

    def add(self, member: Member, extension: str) -> None:
        if _is_audio(extension):
            self.audio = member.read() if member.read is not None else None
            self.link = member.link
            return
        fits = member.size <= (_METADATA_BYTES if extension in _METADATA else _OTHER_BYTES)
        data = member.read() if member.read is not None and fits else None
        values, misfits = _values(extension, data)
        self.values.update(values)
        self.extra.update(misfits)


def _samples(file: StorageFile, damage: Damage) -> Iterator[_TarSample]:
    """Samples until the shard ends or cannot be read on; the last one then has the `problem`."""
    sample: _TarSample | None = None
    try:
        for member in members(file, damage):
            key, extension = _split(member.name)
            if member.read is None and not _is_audio(extension) and extension not in _METADATA:
                continue  # links to folders and the like
            # A second audio member of a key is a clip of its own (names like "speaker.1.wav").
            if sample is None or sample.key != key or (_is_audio(extension) and sample.has_audio):
                if sample is not None:
                    yield sample
                sample = _TarSample(key)
            sample.add(member, extension)
    except Exception as problem:
        if sample is None:
            raise
        sample.problem = problem
    if sample is not None:
        yield sample


def _clip(sample: _TarSample, key: str, shard: Shard) -> Clip:
    error: ClipError | None = None
    if sample.problem is not None and not sample.has_audio:
        error = shard_error(shard, sample.problem)
        if error.code is Code.BROKEN_SHARD:
            error = ClipError(Stage.READ, Code.TRUNCATED, "the shard ends inside the sample")
    elif sample.audio is None:
        error = ClipError(Stage.READ, Code.NO_AUDIO, _without_audio(sample))
    return Clip(
        shard.clip_id(key),
        shard.uri,
        audio=None if error else sample.audio,
        error=error,
        values=sample.values,
        extra=sample.extra,
    )


def _without_audio(sample: _TarSample) -> str:
    if sample.link is not None:
        return (
            f"the audio is a link to {sample.link}, which does not stand before it in the shard, or cannot "
            "be read again because the shard is compressed"
        )
    return f"the sample has no audio member ({', '.join(sorted(AUDIO_EXTENSIONS))})"


def _unique(key: str, keys: Counter[str]) -> str:
    """`key`, or with "~2", "~3" appended when the shard had it before."""
    name = key
    while name in keys:
        keys[key] += 1
        name = f"{key}~{keys[key]}"
    keys[name] = 1
    return name


def _is_audio(extension: str) -> bool:
    return extension.rsplit(".", 1)[-1] in AUDIO_EXTENSIONS


def _split(name: str) -> tuple[str, str]:
    """(key, extension) as WebDataset has them: the key is all up to the first dot of the base name."""
    directory, base = posixpath.split(name.removeprefix("./"))
    stem, _, extension = base.partition(".")
    return posixpath.join(directory, stem), extension.lower()


def _values(extension: str, data: bytes | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a member beside the audio holds, and what of it is not as its extension says.

    None stands for a member that is not at hand or too large. Only of text and metadata a trace remains.
    """
    name = "text" if extension == "txt" else extension
    promised = extension in _METADATA
    if data is None:
        return {}, {name: "(left out)"} if promised else {}
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {}, {name: data} if promised else {}
    if extension != "json":
        return {name: text.strip()}, {}
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return {}, {name: text}
    return loaded if isinstance(loaded, dict) else {name: loaded}, {}
