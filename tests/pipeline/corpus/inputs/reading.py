"""What a job sees of an input: its listing, then its rows."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from pipeline.audio.recording import Recording
from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough, merge, reserved_names
from pipeline.corpus.listing import discover, drop_listed_files
from pipeline.corpus.parts import read_parts, split_all
from pipeline.corpus.readers import READERS
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())
RATE = 16_000


def tone(path: Path, seconds: float = 0.1, level: float = 0.5, channels: int = 1) -> None:
    """A file of one level, 16 kHz: what is read of it is known by length and level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.full((round(seconds * RATE), channels), level, np.float32)
    samples[:, 1:] = -level  # of another channel than the first
    soundfile.write(path, samples, RATE, subtype="PCM_16" if path.suffix == ".flac" else "FLOAT")


def listed(*inputs: Path | str, aside: Counter[str] | None = None, storage: Storage = STORAGE) -> list[Shard]:
    found = discover(list(map(str, inputs)), storage, outputs=["elsewhere"], left_aside=aside)
    return drop_listed_files(found, storage)


def rows(*inputs: Path | str, storage: Storage = STORAGE) -> dict[str, dict[str, Any]]:
    """Each row by its id, as the read tasks of a job make them, in processes of their own."""
    shards = listed(*inputs, storage=storage)
    found = [READERS[shard.format].columns(shard, storage) for shard in shards]
    passthrough = Passthrough(merge(found, reserved_names()))
    parts, passthrough = pickle.loads(pickle.dumps((split_all(shards, storage), passthrough)))
    read = [row for table in read_parts(parts, storage, passthrough) for row in table.to_pylist()]
    by_id = {row["clip_id"]: row for row in read}
    assert len(by_id) == len(read)
    return by_id


def values(row: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    """These columns of a row; None where the table has no such column."""
    return tuple(row.get(name) for name in names)


def codes(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    return {clip_id: row["error"] and row["error"]["code"] for clip_id, row in found.items()}


def heard(row: Mapping[str, Any], storage: Storage = STORAGE) -> tuple[float, float]:
    """(seconds, level) of the audio that a row leads to."""
    data = row["audio"] if row["audio"] is not None else storage.open(row["source"])
    part = {name: row[name] for name in ("start_s", "length_s")}
    with Recording(data, channel="mean", **part) as recording:
        samples = np.concatenate(list(recording.blocks()))
    return round(len(samples) / RATE, 4), round(float(samples.mean()), 4)


def json_lines(records: Iterable[Mapping[str, Any]]) -> str:
    import json

    return "".join(json.dumps(record) + "\n" for record in records)
