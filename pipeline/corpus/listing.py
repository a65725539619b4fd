"""Which shards an input holds: listing, naming, and those that are left aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import cache

from pipeline.corpus import aside
from pipeline.corpus.beside.base import Listing, folder_of
from pipeline.corpus.beside.formats import attached, depends_on_others
from pipeline.corpus.clips import Clip, Shard, read_table
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.condition import Where
from pipeline.corpus.readers import READERS, recognise
from pipeline.errors import JobError
from pipeline.storage import (
    FILE,
    FileInfo,
    Places,
    Storage,
    StorageError,
    glob_root,
    name_in_utf8,
    name_of,
    path_of,
    uri_of,
)

_THREADS = 16  # storage far away answers slowly, but many at once


def discover(
    inputs: Sequence[str],
    storage: Storage,
    *,
    outputs: Sequence[str],
    known_names: Mapping[str, str] | None = None,
    left_aside: Counter[str] | None = None,
) -> list[Shard]:
    """All shards of all inputs, each once, in a stable order.

    Args:
        outputs: their files are no input, even if they lie inside one.
        known_names: uri -> name from earlier runs on the same output; ids of clips must not change. A shard
            that is given in another spelling than then (`..`, a link, `s3a://`) has the known one.
        left_aside: counts, by kind, what is no input.

    Raises:
        JobError: no such input, no shard in it, storage that refuses.
    """
    places, known = Places(), known_names or {}
    known_places = _known_places(known, places)
    inside = tuple(f"{places.of(output)}/" for output in outputs)
    shards: dict[str, Shard] = {}
    seen: set[str] = set()
    for given in inputs:
        other: Counter[str] = Counter()
        found = _discover_one(given, storage, places, inside, other)
        if not found:
            raise JobError(
                f"--input {given}: no audio shard there. Recognised are {_known_formats()}."
                + (f" There are {aside.describe(other)}." if other else "")
            )
        for shard, place in found:
            uri = shard.uri if shard.uri in known else known_places.get(place, shard.uri)
            if uri not in shards and place not in seen:
                shards[uri] = shard if shard.uri == uri else replace(shard, uri=uri)
                seen.add(place)
        if left_aside is not None:
            left_aside.update(other)
    return _with_unique_names(list(shards.values()), known)


def _discover_one(
    given: str, storage: Storage, places: Places, outputs: tuple[str, ...], other: Counter[str]
) -> list[tuple[Shard, str]]:
    """The shards of an input, and their places; `other` counts the rest."""
    try:
        root, files = _look(given, storage)
        if f"{places.of(root)}/".startswith(outputs):
            raise JobError(f"--input {given} is, or lies in, the output: a table is no input.")

        @cache
        def is_output(folder: str) -> bool:
            """By where it really is: the output may be reached by a link."""
            return f"{places.of(folder)}/".startswith(outputs)

        files = [file for file in files if not is_output(file.uri.rpartition("/")[0] or "/")]
        named = _shards(files, path_of(root).rstrip("/"), places, other)
        no_shards = _not_what_they_seem([shard for shard, _ in named], storage)
        other.update(aside.kind_of(shard.name) for shard in no_shards)
        shards = _with_beside(files, named, no_shards, storage, other)
    except StorageError as problem:
        raise JobError(f"--input {given}: {problem}.") from problem
    return [(shards[shard.uri], places.of(root, name)) for shard, name in named if shard.uri in shards]


def _with_beside(
    files: Sequence[FileInfo],
    named: Sequence[tuple[Shard, str]],
    no_shards: Sequence[Shard],
    storage: Storage,
    other: Counter[str],
) -> dict[str, Shard]:
    """The shards by URI, with the files that tell of them; `other` counts these no more."""
    none = {shard.uri for shard in no_shards}
    held = [shard for shard, _ in named if shard.uri not in none]
    known = {shard.uri for shard in held}
    others = {file.uri: file for file in files if file.uri not in known and file.kind == FILE}
    shards, used = attached(Listing(others, held, storage))
    other.subtract(aside.kind_of(name_of(path_of(uri))) for uri in used - known)
    for kind in [kind for kind, count in other.items() if count <= 0]:
        del other[kind]
    return {shard.uri: shard for shard in shards}


def shard_at(uri: str, name: str, storage: Storage) -> Shard | None:
    """The shard there, with what lies beside it where its clips depend on that; None where it is none.

    Args:
        name: of the shard.
    """
    reader = recognise(path_of(uri))
    if reader is not None and not depends_on_others(uri):
        file = storage.info(uri)
        return Shard(uri, name, reader.name, file.size, file.version, file.modified)
    found = _discover_one(folder_of(uri), storage, Places(), (), Counter()) if reader is not None else []
    return next((replace(shard, name=name) for shard, _ in found if shard.uri == uri), None)


def _not_what_they_seem(shards: Iterable[Shard], storage: Storage) -> list[Shard]:
    doubtful = [shard for shard in shards if READERS[shard.format].is_doubtful(shard.name)]
    with ThreadPoolExecutor(_THREADS) as threads:
        sure = threads.map(lambda shard: READERS[shard.format].is_one(shard, storage), doubtful)
        return [shard for shard, is_one in zip(doubtful, sure, strict=True) if not is_one]


def _look(given: str, storage: Storage) -> tuple[str, list[FileInfo]]:
    """The folder that names are relative to, and what there is."""
    uri = storage.normalise(given)
    path = path_of(uri)
    if storage.is_glob(uri):
        return uri_of(uri, glob_root(path) or "/"), storage.glob(uri, below=True)
    if storage.is_dir(uri):
        return uri, storage.find(uri, aside.is_visible)
    if not storage.exists(uri):
        raise JobError(f"--input {given}: does not exist.")
    file = storage.info(uri)
    if recognise(path) is None:
        raise JobError(f"--input {given}: not a kind of file that holds audio here ({_known_formats()}).")
    return uri_of(uri, path.rsplit("/", 1)[0] or "/"), [file]


def _known_formats() -> str:
    *others, last = (reader.about for reader in READERS.values())
    return f"{', '.join(others)} and {last}"


def _shards(
    files: Sequence[FileInfo], root: str, places: Places, other: Counter[str]
) -> list[tuple[Shard, str]]:
    """Those of the files that are, and their paths below the root as they are; `other` counts the rest."""
    tables = {places.of(folder) for folder in aside.tables_among(file.uri for file in files)}
    hidden: set[str] = set()
    shards = []
    for file in files:
        path = path_of(file.uri)
        name = path[len(root) :].lstrip("/") if path.startswith(root) else path
        reader = recognise(path)
        if (part := aside.hidden_part(name)) is not None:
            hidden.add(part)
        elif aside.is_of_log(name) or (
            tables and path.endswith(".parquet") and places.of(file.uri.rpartition("/")[0]) in tables
        ):
            other[aside.TABLE_FILE] += 1
        elif file.kind != FILE:
            other[file.kind] += 1
        elif reader is not None:
            written = name_in_utf8(name)
            shards.append(
                (Shard(file.uri, written, reader.name, file.size, file.version, file.modified), name)
            )
        elif base := name_of(path):  # else the mark of a folder in an object store
            other[aside.kind_of(base)] += 1
    if hidden:
        other[aside.HIDDEN_NAME] += len(hidden)
    return shards


def _known_places(known: Mapping[str, str], places: Places) -> dict[str, str]:
    """place -> uri of the shards that earlier runs read, each in the input that it was found in."""
    found: dict[str, str] = {}
    for uri, name in known.items():
        path = path_of(uri)
        inside = path.endswith(f"/{name}")
        place = places.of(uri_of(uri, path[: -len(name) - 1] or "/"), name) if inside else places.of_file(uri)
        found.setdefault(place, uri)
    return found


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
        longer = {uri: _one_part_more(uri, names[uri]) for uri in clashing}
        if all(names[uri] == name for uri, name in longer.items()):
            break
        names |= longer
    names = {**names, **{shard.uri: known[shard.uri] for shard in shards if shard.uri in known}}
    return [
        shard if shard.name == names[shard.uri] else replace(shard, name=names[shard.uri]) for shard in shards
    ]


def _one_part_more(uri: str, name: str) -> str:
    """Beyond the whole path there is the URI, which nothing else has."""
    parts = path_of(uri).lstrip("/").split("/")
    wanted = name.count("/") + 2
    return uri if name == uri or wanted > len(parts) else name_in_utf8("/".join(parts[-wanted:]))


def drop_listed_files(shards: list[Shard], storage: Storage) -> list[Shard]:
    """Drops loose files that a manifest or a Parquet of the same input names: its row is the clip.

    Raises:
        JobError: one of them cannot be read, so that its clips would be there twice.
    """
    places = Places()
    loose = {places.of_file(shard.uri) for shard in shards if _is_loose(shard)}
    listing = [shard for shard in shards if READERS[shard.format].lists_files]
    if not loose or not listing:
        return shards

    def is_loose(source: str) -> bool:
        return places.of_file(source) in loose

    def listed(shard: Shard) -> set[str]:
        return set(map(places.of_file, READERS[shard.format].sources(shard, storage, is_loose)))

    try:
        with ThreadPoolExecutor(_THREADS) as threads:
            dropped = set().union(*threads.map(listed, listing))
    except StorageError as problem:
        raise JobError(
            f"--input: {problem}, and nobody knows which of the audio files it lists."
        ) from problem
    return [shard for shard in shards if not _is_loose(shard) or places.of_file(shard.uri) not in dropped]


def filter_files(
    shards: Sequence[Shard], where: Where, passthrough: Passthrough, storage: Storage
) -> list[Shard]:
    """Drops loose files that the condition does not hold for: name and what lies beside them decide."""
    loose = [shard for shard in shards if _is_loose(shard)]
    if not loose:
        return list(shards)

    def clip(shard: Shard) -> Clip:
        return next(READERS[shard.format].delivered(shard, storage))

    with ThreadPoolExecutor(_THREADS) as threads:
        clips = read_table(list(threads.map(clip, loose)), passthrough)
    wanted = set(where.filter(clips)["shard"].to_pylist())
    return [shard for shard in shards if not _is_loose(shard) or shard.uri in wanted]


def _is_loose(shard: Shard) -> bool:
    return READERS[shard.format].one_clip
