"""The formats of files beside shards; one that is registered is looked for in each input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pipeline.corpus.beside.base import Beside, Listing
from pipeline.corpus.beside.kaldi import kaldi
from pipeline.corpus.beside.nemo import tarred
from pipeline.corpus.beside.texts import librispeech, ljspeech, sidecars
from pipeline.corpus.clips import Shard

Find = Callable[[Listing], Iterator[tuple[Shard | None, Beside]]]
"""Which shards of an input have such files; a file that belongs to no single shard comes with None."""

FINDERS: list[Find] = [tarred, kaldi, librispeech, ljspeech, sidecars]


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
