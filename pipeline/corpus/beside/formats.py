"""The formats of files beside shards; one that is registered is looked for in each input."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pipeline.corpus.beside.base import Beside, Listing, folder_of
from pipeline.corpus.beside.kaldi import kaldi
from pipeline.corpus.beside.lhotse import shar, supervised
from pipeline.corpus.beside.nemo import tarred
from pipeline.corpus.beside.texts import librispeech, ljspeech, sidecars
from pipeline.corpus.clips import Shard
from pipeline.corpus.readers.parquet.arrow import DICTIONARY, STATE
from pipeline.storage import name_of

Find = Callable[[Listing], Iterator[tuple[Shard | None, Beside]]]
"""Which shards of an input have such files; a file that belongs to no single shard comes with None."""

_SAVED = (STATE, "dataset_info.json")


def saved(listing: Listing) -> Iterator[tuple[None, Beside]]:
    """What `save_to_disk` of `datasets` writes beside, and above, its *.arrow."""
    folders = {folder_of(shard.uri) for shard in listing.shards if shard.format == "arrow"}
    places = [f"{folder}/{name}" for folder in sorted(folders) for name in _SAVED]
    places += [f"{folder}/{DICTIONARY}" for folder in sorted(set(map(folder_of, folders)))]
    for place in places:
        if (info := listing.others.get(place)) is not None:
            yield None, Beside(info.uri, info.version)


FINDERS: list[Find] = [tarred, shar, supervised, kaldi, saved, librispeech, ljspeech, sidecars]


_DEPENDING = re.compile(r"audio_\d+\.tar|recording\.\d+\.tar(\.gz)?|wav\.scp")


def depends_on_others(uri: str) -> bool:
    """Whether a file beside this one may say which clips it has."""
    return _DEPENDING.fullmatch(name_of(uri)) is not None


def attached(listing: Listing) -> tuple[Sequence[Shard], set[str]]:
    """The shards with what lies beside them, without those that lie beside others, and all of these (URIs).

    Raises:
        StorageError: one was not delivered.
    """
    beside: dict[str, Beside] = {}
    used: set[str] = set()
    for find in FINDERS:
        for shard, file in find(listing):
            used.add(file.uri)
            if shard is not None:
                beside.setdefault(shard.uri, file)
    shards = (shard for shard in listing.shards if shard.uri not in used)
    return [replace(shard, beside=beside.get(shard.uri)) for shard in shards], used
