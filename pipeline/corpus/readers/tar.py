"""WebDataset tar shards, read as a stream: consecutive members of one key form a sample."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.corpus.clips import Clip
from pipeline.corpus.listing import AUDIO_EXTENSIONS, Shard
from pipeline.corpus.readers.base import broken, clip_id, failure, open_shard, shard_row, tables
from pipeline.corpus.readers.tar_stream import Trouble, members
from pipeline.errors import ClipError, Code, Stage
from pipeline.storage import Storage

_METADATA = ("txt", "json")
# Transcripts and metadata beyond this are not what their extension says.
_METADATA_BYTES = 8 << 20
_OTHER_BYTES = 64 << 10


@dataclass
class _Sample:
    key: str
    audio: bytes | None = None
    link: str | None = None  # the member that the audio is a link to
    cut: bool = False  # the shard ended inside it
    values: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def has_audio(self) -> bool:
        return self.audio is not None or self.link is not None


def read_tar(shard: Shard, storage: Storage, carried: pa.Schema) -> Iterator[pa.Table]:
    """The shard's samples in order; of a damaged shard all that can be found, and one row for the shard."""
    trouble = Trouble()
    yield from tables(_clips(shard, storage, trouble), carried)
    if trouble.problem is not None:
        yield shard_row(shard, failure(shard, storage, trouble.problem), carried)
    elif trouble.damage is not None:
        yield shard_row(shard, broken(f"{shard.name} is damaged: {trouble.damage}"), carried)


def tar_samples(shard: Shard, storage: Storage, limit: int = 8) -> list[dict[str, Any]]:
    """The values of the first `limit` samples, without their audio; fewer where the shard is damaged."""
    return [sample.values for sample in islice(_samples(shard, storage, Trouble()), limit)]


def _clips(shard: Shard, storage: Storage, trouble: Trouble) -> Iterator[Clip]:
    keys = Counter([""])  # the key of the row that tells of the shard as a whole
    for sample in _samples(shard, storage, trouble):
        error: ClipError | None = None
        if sample.cut and trouble.problem is not None:
            error = failure(shard, storage, trouble.problem)
            if error.code is Code.BROKEN_SHARD:
                error = ClipError(Stage.READ, Code.TRUNCATED, "the shard ends inside the sample")
        elif sample.audio is None:
            error = ClipError(Stage.READ, Code.NO_AUDIO, _without_audio(sample))
        yield Clip(
            clip_id(shard, _unique(sample.key, keys)),
            shard.uri,
            audio=None if error else sample.audio,
            error=error,
            values=sample.values,
            extra=sample.extra,
        )


def _without_audio(sample: _Sample) -> str:
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


def _samples(shard: Shard, storage: Storage, trouble: Trouble) -> Iterator[_Sample]:
    """Samples until the shard ends or cannot be read further; why is left in `trouble`."""
    sample: _Sample | None = None
    try:
        with open_shard(shard, storage) as handle:
            for member in members(handle, trouble):
                key, extension = _split(member.name)
                is_audio = extension.rsplit(".", 1)[-1] in AUDIO_EXTENSIONS
                if member.read is None and not is_audio and extension not in _METADATA:
                    continue  # links to folders and the like
                # A second audio member of a key is a clip of its own (names like "speaker.1.wav").
                if sample is None or sample.key != key or (is_audio and sample.has_audio):
                    if sample is not None:
                        yield sample
                    sample = _Sample(key)
                if is_audio:
                    sample.audio = member.read() if member.read is not None else None
                    sample.link = member.link
                else:
                    fits = member.size <= (_METADATA_BYTES if extension in _METADATA else _OTHER_BYTES)
                    data = member.read() if member.read is not None and fits else None
                    values, misfits = _values(extension, data)
                    sample.values.update(values)
                    sample.extra.update(misfits)
    except Exception as problem:
        trouble.problem = problem
        if sample is not None:
            sample.cut = not sample.has_audio
    if sample is not None:
        yield sample


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
