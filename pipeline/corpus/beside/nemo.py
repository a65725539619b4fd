"""NeMo's tarred datasets: `audio_<k>.tar`, and manifests whose records have a `shard_id`.

Either one manifest of all tars, or `manifest_<k>.json` for each, mostly in `sharded_manifests/`. Several
records may be parts of one recording: `x-sub1.wav` and `x-sub2.wav` are parts of the member `x.wav`, each
with its `offset` and `duration`.
"""

from __future__ import annotations

import io
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pipeline.corpus.beside.base import Beside, Listing, folder_of, stem_of
from pipeline.corpus.beside.entries import Entry, OfAllClips
from pipeline.corpus.clips import Shard
from pipeline.corpus.readers.compression import decompressed
from pipeline.corpus.readers.manifest import ManifestReader
from pipeline.corpus.readers.manifest.records import Records
from pipeline.errors import ClipError, ClipFailedError
from pipeline.storage import Storage, name_of, without_credentials

_TAR = re.compile(r"audio_(\d+)\.tar")
_SHARDED, _MANIFEST = "sharded_manifests", re.compile(r"manifest_(\d+)\.jsonl?")
_PART = re.compile(r"(.+)-sub\d+")
_MANIFESTS = ManifestReader()
_HEAD_BYTES, _HEAD_RECORDS = 64 << 10, 64
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TarManifest(OfAllClips):
    """The records of one tar.

    Attributes:
        number: of the tar, the `shard_id` of its records.
        start, stop: the bytes of the manifest between which they are; `stop` is None for all of it.
        first: number of the first record there.
    """

    number: int
    start: int = 0
    stop: int | None = None
    first: int = 1

    def entries(self, storage: Storage) -> Iterator[tuple[str, Entry]]:
        with storage.open(self.uri) as file:
            yield from self._entries(Records(file))

    def _entries(self, records: Records) -> Iterator[tuple[str, Entry]]:
        at, current = self.start, self.number
        found = records.start_at(self.start) if self.stop is not None else iter(records)
        for number, (line, size) in enumerate(found, self.first):
            if self.stop is not None and at >= self.stop:
                return
            at += size
            text = records.trimmed(line)
            record, error = _read(records, text) if text else ({}, None)
            current = _shard_id(record, current)
            if text and current == self.number:
                yield self._entry(record, error, number)

    def _entry(self, record: dict[str, Any], error: ClipError | None, number: int) -> tuple[str, Entry]:
        path = record.get("audio_filepath")
        key = stem_of(path) if isinstance(path, str) and path else f"{name_of(self.uri)}:{number}"
        part = _PART.fullmatch(key)
        start_s = length_s = None
        try:
            start_s, length_s = _MANIFESTS.part(record)
            if error is None:
                _MANIFESTS.audio_path(record)
        except ClipFailedError as failed:
            error = failed.error
        return part[1] if part else key, Entry(key, record, {}, start_s, length_s, error)


def tarred(listing: Listing) -> Iterator[tuple[Shard | None, Beside]]:
    """Of each tar the manifest, or the part of one, that tells of it."""
    folders: dict[str, dict[int, Shard]] = defaultdict(dict)
    for shard in listing.shards:
        if match := _TAR.fullmatch(name_of(shard.uri)):
            folders[folder_of(shard.uri)][int(match[1])] = shard
    whole: dict[str, list[Shard]] = defaultdict(list)
    told: dict[str, set[int]] = defaultdict(set)
    for shard, home, number in _manifests(listing, folders):
        if number is None:
            whole[home].append(shard)
        elif number in folders[home]:
            told[home].add(number)
            yield folders[home][number], TarManifest(shard.uri, shard.version, number)
    for home, manifests in whole.items():
        manifest = min(manifests, key=lambda shard: not name_of(shard.uri).startswith("tarred"))
        yield None, Beside(manifest.uri, manifest.version)
        parts = _parts(manifest, listing.storage) if told[home] != folders[home].keys() else {}
        for number in parts.keys() & folders[home].keys() - told[home]:
            yield folders[home][number], parts[number]
        if absent := len(parts.keys() - folders[home].keys()):
            _LOG.warning("%s tells of %d tars that are not there", without_credentials(manifest.uri), absent)


def _manifests(listing: Listing, folders: Mapping[str, object]) -> Iterator[tuple[Shard, str, int | None]]:
    """Those of tars, the folder of these, and the number of the one tar where it is of one."""
    for shard in listing.shards if folders else ():
        folder = folder_of(shard.uri)
        match = _MANIFEST.fullmatch(name_of(shard.uri))
        number = int(match[1]) if match else None
        above = folder_of(folder)
        if shard.format != _MANIFESTS.name:
            continue
        if name_of(folder) == _SHARDED and above in folders and number is not None:
            yield shard, above, number
        elif folder in folders and _is_tarred(shard, listing.storage):
            yield shard, folder, number


def _is_tarred(shard: Shard, storage: Storage) -> bool:
    with storage.open(shard.uri, block_size=_HEAD_BYTES) as file:
        head: Any = io.BytesIO(io.BufferedReader(decompressed(file)).read(_HEAD_BYTES))
    records = Records(head)
    return any(
        _shard_id(_read(records, records.trimmed(line))[0], None) is not None
        for line, _ in islice(records, _HEAD_RECORDS)
    )


def _parts(manifest: Shard, storage: Storage) -> dict[int, TarManifest]:
    """Where in the manifest the records of each tar are; one that cannot be read is of the tar before it."""
    parts: dict[int, TarManifest] = {}
    with storage.open(manifest.uri) as file:
        records = Records(file)
        at = start = records.begin
        current, first = None, 1
        for number, (line, size) in enumerate(records, 1):
            current = _shard_id(_read(records, records.trimmed(line))[0], current)
            at += size
            if current is None:
                continue
            if not records.direct:
                parts[current] = TarManifest(manifest.uri, manifest.version, current)
            elif held := parts.get(current):
                parts[current] = replace(held, stop=at)
            else:
                parts[current] = TarManifest(manifest.uri, manifest.version, current, start, at, first)
            start, first = at, number + 1
    return parts


def _shard_id(record: dict[str, Any], otherwise: int | None) -> Any:
    number = record.get("shard_id")
    return number if isinstance(number, int) else otherwise


def _read(records: Records, text: bytes) -> tuple[dict[str, Any], ClipError | None]:
    try:
        return records.read(text), None
    except ClipFailedError as failed:
        return {}, failed.error
