"""Lhotse's supervisions beside its recordings, and the cuts beside the tars of a Shar."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.corpus.beside.base import Beside, Listing
from pipeline.corpus.beside.entries import Entry, OfAllClips, OfEachClip
from pipeline.corpus.clips import Clip, Shard
from pipeline.corpus.readers.manifest.lhotse import told_by, values_of
from pipeline.corpus.readers.manifest.records import Records, bad_record
from pipeline.errors import ClipFailedError
from pipeline.storage import Storage, name_of

_RECORDINGS, _SUPERVISIONS = re.compile(r"(.*)recordings(.*\.jsonl(?:\.gz)?)"), "supervisions"
_SHAR, _AUDIO = re.compile(r"(\w+)\.(\d+)\.tar(?:\.gz)?"), "recording"
_CUTS = ("cuts.{}.jsonl.gz", "cuts.{}.jsonl")


@dataclass(frozen=True)
class Supervisions(OfEachClip):
    """Of recordings, by their ids; one may have several."""

    def key_of(self, clip: Clip, shard: Shard) -> str:
        return str(clip.values.get("id"))

    def of(self, key: str, storage: Storage) -> Entry | None:
        held = _by_recording(self, storage).get(key)
        return Entry(key, told_by(held)) if held else None


@lru_cache(2)
def _by_recording(supervisions: Supervisions, storage: Storage) -> Mapping[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _, record in _read(supervisions.uri, storage):
        if isinstance(record, dict):
            found[str(record.get("recording_id"))].append(record)
    return found


def supervised(listing: Listing) -> Iterator[tuple[Shard, Beside]]:
    """`x_recordings_y.jsonl.gz` has `x_supervisions_y.jsonl.gz` beside it."""
    shards = {shard.uri: shard for shard in listing.shards if shard.format == "manifest"}
    for shard in shards.values():
        match = _RECORDINGS.fullmatch(name_of(shard.uri))
        folder = shard.uri[: -len(name_of(shard.uri))]
        if match and (other := shards.get(f"{folder}{match[1]}{_SUPERVISIONS}{match[2]}")):
            yield shard, Supervisions(other.uri, other.version)


@dataclass(frozen=True)
class SharCuts(OfAllClips):
    """The cuts whose audio a tar of a Shar holds, each in a member that is called as the cut."""

    def entries(self, storage: Storage) -> Iterator[tuple[str, Entry]]:
        for number, record in _read(self.uri, storage):
            if isinstance(record, dict) and isinstance(record.get("id"), str):
                yield record["id"], Entry(record["id"], values_of(record))
            else:
                key = f"{name_of(self.uri)}:{number}"
                failed = record if isinstance(record, ClipFailedError) else bad_record("the cut has no `id`")
                yield key, Entry(key, error=failed.error)


def shar(listing: Listing) -> Iterator[tuple[Shard | None, Beside]]:
    """`recording.000000.tar` has `cuts.000000.jsonl.gz` beside it; the tars of other fields hold no clips."""
    shards = {shard.uri: shard for shard in listing.shards}
    tars = {shard.uri: match for shard in listing.shards if (match := _SHAR.fullmatch(name_of(shard.uri)))}
    for uri, match in tars.items():
        folder = uri[: -len(name_of(uri))]
        names = [name.format(match[2]) for name in _CUTS]
        cuts = next((shards[folder + name] for name in names if folder + name in shards), None)
        if cuts and match[1] == _AUDIO:
            yield shards[uri], SharCuts(cuts.uri, cuts.version)
        elif cuts and any(f"{folder}{_AUDIO}.{match[2]}{end}" in tars for end in (".tar", ".tar.gz")):
            yield None, Beside(uri, shards[uri].version)


def _read(uri: str, storage: Storage) -> Iterator[tuple[int, dict[str, Any] | ClipFailedError]]:
    """The records of a file with their numbers, and why one is none."""
    with storage.open(uri) as file:
        records = Records(file)
        for number, (line, _) in enumerate(records, 1):
            if text := records.trimmed(line):
                try:
                    yield number, records.read(text)
                except ClipFailedError as failed:
                    yield number, failed
