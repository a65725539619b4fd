"""Kaldi's data directories: the recordings of `wav.scp`; `beside/kaldi.py` reads the tables beside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipeline.corpus.clips import Clip, Shard
from pipeline.corpus.readers.base import Reader
from pipeline.corpus.readers.manifest.records import bad_record
from pipeline.errors import ClipFailedError
from pipeline.storage import Storage, StorageFile, resolve

NAME = "wav.scp"
_IN_ARCHIVE = re.compile(r".+\.ark:\d+(\[.*\])?")


class KaldiReader(Reader):
    """wav.scp: in each line the id of a recording, which is its key, and where it is."""

    name = "kaldi"
    endings = (NAME,)
    lists_files = True

    @property
    def about(self) -> str:
        return "Kaldi's wav.scp"

    def is_doubtful(self, name: str) -> bool:
        return True

    def is_one(self, shard: Shard, storage: Storage) -> bool:
        return shard.name.rpartition("/")[2].lower() == NAME

    def clips(self, file: StorageFile, shard: Shard, slice: Any) -> Iterator[Clip]:
        keys: Counter[str] = Counter()
        for number, line in enumerate(file.read().splitlines(), 1):
            key, *rest = line.decode("utf-8-sig", "replace").split(maxsplit=1)[:2] or [""]
            if key:
                keys[key] += 1
                key = key if keys[key] == 1 else f"{key}~{keys[key]}"
                try:
                    place = _place(line, " ".join(rest).strip(), number)
                    yield Clip(shard.clip_id(key), shard.uri, source=resolve(shard.uri, place))
                except ClipFailedError as failed:
                    yield Clip(shard.clip_id(key), shard.uri, error=failed.error)


def _place(line: bytes, place: str, number: int) -> str:
    """What a line names; a command may hold a secret, so that it is not repeated."""
    try:
        line.decode()
    except UnicodeDecodeError as problem:
        raise bad_record(f"line {number} of {NAME} is not UTF-8: {problem}") from problem
    if place.endswith("|") or place.startswith("|"):
        raise bad_record(
            f"line {number} of {NAME} is a command, and commands are not run: run it once, let it write an "
            "audio file, and name that file"
        )
    if _IN_ARCHIVE.fullmatch(place):
        raise bad_record(f"line {number} of {NAME} names a place in an archive (.ark): name an audio file")
    if place in ("", "-"):
        raise bad_record(f"line {number} of {NAME} names no audio file")
    return place
