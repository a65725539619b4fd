"""Which shards an input holds: listing, naming, and those that are left aside."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from pipeline.corpus.clips import Shard, read_table
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.condition import Where
from pipeline.corpus.readers import READERS, recognise
from pipeline.corpus.readers.base import loose_clip
from pipeline.errors import JobError
from pipeline.storage import FileInfo, Storage, StorageError, path_of


def discover(
    inputs: Sequence[str],
    storage: Storage,
    *,
    outputs: Sequence[str],
    known_names: Mapping[str, str] | None = None,
) -> list[Shard]:
    """All shards of all inputs, each once, in a stable order.

    Args:
        outputs: their files are no input, even if they lie inside one.
        known_names: uri -> name from earlier runs on the same output; ids of clips must not change.

    Raises:
        JobError: no such input, no shard in it, storage that refuses.
    """
    shards: dict[str, Shard] = {}
    for given in inputs:
        try:
            found = _discover_one(storage.normalise(given), given, storage)
        except StorageError as problem:
            raise JobError(f"--input {given}: {problem}.") from problem
        inside = tuple(output.rstrip("/") + "/" for output in outputs)
        found = [shard for shard in found if not shard.uri.startswith(inside)]
        if not found:
            raise JobError(f"--input {given}: no audio shard there. Recognised are {_known_formats()}.")
        for shard in found:
            shards.setdefault(shard.uri, shard)
    return _with_unique_names(list(shards.values()), known_names or {})


def _discover_one(uri: str, given: str, storage: Storage) -> list[Shard]:
    path = path_of(uri)
    if storage.is_glob(uri):
        # Names are relative to the part of the path before the first wildcard.
        root = re.split(r"[*?\[]", path, maxsplit=1)[0].rsplit("/", 1)[0]
        return _shards(storage.glob(uri, below=True), root)
    if storage.is_dir(uri):
        return _shards(storage.find(uri), path.rstrip("/"))
    if not storage.exists(uri):
        raise JobError(f"--input {given}: does not exist.")
    if recognise(path) is None:
        raise JobError(f"--input {given}: not a kind of file that holds audio here ({_known_formats()}).")
    return _shards([storage.info(uri)], path.rsplit("/", 1)[0])


def _known_formats() -> str:
    *others, last = (reader.about for reader in READERS.values())
    return f"{', '.join(others)} and {last}"


def _shards(files: Iterable[FileInfo], root: str) -> list[Shard]:
    root = root.rstrip("/")
    shards = []
    for file in files:
        path = path_of(file.uri)
        name = path[len(root) :].lstrip("/") if path.startswith(root) else path
        hidden = any(part.startswith((".", "_")) for part in name.split("/"))
        reader = recognise(path)
        if reader is not None and not hidden:
            shards.append(Shard(file.uri, name, reader.name, file.size, file.version, file.modified))
    return shards


def changed_since(shards: Iterable[Shard], since: datetime | None) -> list[Shard]:
    """Those that changed at this time or later, and those of which nobody knows."""
    earliest = since.timestamp() if since else None
    return [
        shard for shard in shards if earliest is None or shard.modified is None or shard.modified >= earliest
    ]


def _with_unique_names(shards: list[Shard], known: Mapping[str, str]) -> list[Shard]:
    """Two inputs may hold the same relative path; each then gets as much of its path as it takes."""
    fresh = [shard for shard in shards if shard.uri not in known]
    taken = Counter(known.values())
    names = {shard.uri: shard.name for shard in fresh}
    while True:
        counts = Counter(names.values())
        clashing = [uri for uri, name in names.items() if counts[name] + taken[name] > 1]
        longer = {uri: _one_part_more(path_of(uri), names[uri]) for uri in clashing}
        if all(names[uri] == name for uri, name in longer.items()):
            break
        names |= longer
    return [replace(shard, name=known.get(shard.uri) or names[shard.uri]) for shard in shards]


def _one_part_more(path: str, name: str) -> str:
    before = path[: len(path) - len(name)].rstrip("/")
    return f"{before.rsplit('/', 1)[-1]}/{name}" if before else name


def drop_listed_files(shards: list[Shard], storage: Storage) -> list[Shard]:
    """Drops loose files that a manifest or a Parquet of the same input names: its row is the clip."""
    loose = {shard.uri for shard in shards if _is_loose(shard)}
    listed: set[str] = set()

    def is_loose(source: str) -> bool:
        # What is no place at all is the clip's error, not the job's.
        with suppress(JobError, ValueError):
            return storage.normalise(source) in loose
        return False

    for shard in shards if loose else ():
        if READERS[shard.format].lists_files:
            with suppress(StorageError):  # reading the shard says it
                sources = READERS[shard.format].sources(shard, storage, is_loose)
                listed.update(storage.normalise(source) for source in sources)
    return [shard for shard in shards if not _is_loose(shard) or shard.uri not in listed]


def filter_files(shards: Sequence[Shard], where: Where, passthrough: Passthrough) -> list[Shard]:
    """Drops loose files that the condition does not hold for; a file's name decides, none is opened."""
    loose = [shard for shard in shards if _is_loose(shard)]
    if not loose:
        return list(shards)
    clips = read_table([loose_clip(shard) for shard in loose], passthrough)
    wanted = set(where.filter(clips)["shard"].to_pylist())
    return [shard for shard in shards if not _is_loose(shard) or shard.uri in wanted]


def _is_loose(shard: Shard) -> bool:
    return READERS[shard.format].one_clip
