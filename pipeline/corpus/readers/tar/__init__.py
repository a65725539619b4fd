"""Tar shards (WebDataset and others): each audio member is a clip, with what belongs to it as its values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from pipeline.corpus.clips import Clip, Shard
from pipeline.corpus.readers.audio import AUDIO_EXTENSIONS
from pipeline.corpus.readers.base import DamagedShardError, Reader, shard_error
from pipeline.corpus.readers.tar.archive import Archive, Damage, Member, NotAtHandError
from pipeline.corpus.readers.tar.samples import METADATA, Preview, Sample, Samples, is_audio
from pipeline.errors import ClipError, ClipFailedError, Code, Stage
from pipeline.storage import Storage, StorageError, StorageFile, is_remote

_WINDOW_BYTES = 16 << 20
_PREVIEWED_MEMBERS = 10_000
_MIXED_MEMBERS = 64


class TarReader(Reader):
    """Tars, compressed or not. Of a damaged one all that can be found is read.

    Of a local, uncompressed one all headers are read first, so the members of a clip may stand anywhere. Any
    other is read once, as a stream: there `_WINDOW_BYTES` of audio may stand between them, and a row of the
    shard tells what came later.
    """

    name = "tar"
    endings = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")

    @property
    def about(self) -> str:
        return "*.tar(.gz, .bz2, .xz)"

    def clips(self, file: StorageFile, shard: Shard, slice: None) -> Iterator[Clip]:
        damage = Damage()
        archive = Archive(file, damage)
        samples = Samples(archive, None if _seekable(archive, shard) else _WINDOW_BYTES)
        keys = Counter([""])  # the key of the row that tells of the shard as a whole
        for sample in samples.of(archive):
            yield _clip(sample, shard.clip_id(_unique(sample.stem, keys)), shard, samples)
        if samples.problem is not None:
            raise samples.problem
        if damage.first is not None:
            raise DamagedShardError(damage.first)
        if samples.apart:
            raise ClipFailedError(Stage.READ, Code.BROKEN_SHARD, _apart(shard, samples.apart))

    def samples(self, shard: Shard, storage: Storage) -> list[dict[str, Any]]:
        """The values of the first clips that have any; no audio is read."""
        try:
            with storage.open(shard.uri) as file:
                archive = Archive(file, Damage())
                preview = Preview(archive)
                first = preview.of(_first(archive, self.sampled, not _seekable(archive, shard)))
                values = (_values(sample, preview)[0] for sample in first)
                return list(islice(filter(None, values), self.sampled))
        except Exception:  # whatever damage makes of it: reading the shard says it
            return []


def _seekable(archive: Archive, shard: Shard) -> bool:
    return archive.seekable and not is_remote(shard.uri)


def _first(archive: Archive, clips: int, stream: bool) -> Iterator[Member]:
    """The first members: a few where audio is among what belongs to it, else many.

    Of a stream, to go far is to load all of it.
    """
    audio = size = 0
    for number, member in enumerate(islice(archive, _PREVIEWED_MEMBERS), 1):
        yield member
        audio += is_audio(member.name)
        size += member.size
        mixed = number == _MIXED_MEMBERS and 0 < audio < number
        if mixed or (stream and size > _WINDOW_BYTES and audio > clips):
            return


def _clip(sample: Sample, identity: str, shard: Shard, samples: Samples) -> Clip:
    audio: bytearray | None = None
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    error: ClipError | None = None
    try:
        values, extra = _values(sample, samples)
        if sample.audio is not None:
            audio = samples.read(sample.audio, sample.extension)
        elif samples.problem is not None:
            raise samples.problem
        else:
            error = ClipError(Stage.READ, Code.NO_AUDIO, _without_audio(sample))
    except NotAtHandError as problem:
        error = ClipError(Stage.READ, Code.NO_AUDIO, f"the audio is {problem}")
    except Exception as problem:  # damage, or what storage failed to deliver
        error = shard_error(shard, problem)
        if error.code is Code.BROKEN_SHARD:
            error = ClipError(Stage.READ, Code.TRUNCATED, f"the shard ends inside the sample: {problem}")
    sample.audio = None
    return Clip(identity, shard.uri, audio=audio, error=error, values=values, extra=extra)


def _without_audio(sample: Sample) -> str:
    members = ", ".join(".".join(filter(None, [sample.stem, extension])) for extension in sample.beside)
    return f"no audio ({', '.join(sorted(AUDIO_EXTENSIONS))}) stands in the shard for {members}"


def _apart(shard: Shard, members: Sequence[str]) -> str:
    return (
        f"{shard.name}: {len(members)} members are lost to their clips, the first is {members[0]}: they do "
        "not stand side by side with the audio, which was passed before they came, or the clip has another "
        "of that name. Sort the members (tar --sort=name), or put the tar on a local disk, uncompressed"
    )


def _unique(key: str, keys: Counter[str]) -> str:
    """`key`, or with "~2", "~3" appended when the shard had it before."""
    name = key
    while name in keys:
        keys[key] += 1
        name = f"{key}~{keys[key]}"
    keys[name] = 1
    return name


def _values(sample: Sample, samples: Samples) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands beside the audio, and what of it is not as its extension says."""
    values: dict[str, Any] = {}
    misfits: dict[str, Any] = {}
    for extension, content in sample.beside.items():
        try:
            data = samples.read(content, extension)
        except StorageError:
            raise
        except Exception:  # absent, too large, or damaged: the clip itself can do without
            data = None
        fitting, misfitting = _parsed(extension, data)
        values.update(fitting)
        misfits.update(misfitting)
    return values, misfits


def _parsed(extension: str, data: bytearray | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a member beside the audio holds, and what of it is not as its extension says.

    None stands for a member that is not at hand or too large. Only of text and metadata a trace remains.
    """
    name = "text" if extension == "txt" else extension
    promised = extension.rpartition(".")[2] in METADATA
    if data is None:
        return {}, {name: "(left out)"} if promised else {}
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {}, {name: bytes(data)} if promised else {}
    if extension != "json":
        return {name: text.strip()} if name else {}, {}
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return {}, {name: text}
    return loaded if isinstance(loaded, dict) else {name: loaded}, {}
