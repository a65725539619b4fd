"""Where the audio of a clip lies: only some clips have a file that other tools can open too."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipeline.clip_names import shard_and_key
from pipeline.corpus.columns import Cell, output_name, reserved_names
from pipeline.corpus.readers import recognise
from pipeline.corpus.readers.manifest import AUDIO_KEYS, ManifestReader
from pipeline.errors import ClipFailedError
from pipeline.export.table import Row, Table
from pipeline.schema import CLIP_COLUMNS, COST_COLUMNS, EXTRA
from pipeline.storage import StorageError, path_of
from pipeline.tasks import TASKS

NO_FILE = "without an audio file of its own"
PARTS = ("offset", "start", "duration", "end")  # what manifests say of a clip's place in its file
_OWN = "own:"
_KEYS = {key: output_name(key, reserved_names()) for key in (*AUDIO_KEYS, *PARTS, "client_id")}


@dataclass(frozen=True)
class AudioFile:
    """The file that holds a clip.

    Attributes:
        uri: its path, or URI.
        name: what the input calls it: its path below the input, or the words of its manifest.
        start_s: where the clip begins in it; None: the clip is all of it.
    """

    uri: str
    name: str
    start_s: float | None = None


def columns_of_audio(table: Table) -> list[str]:
    """The columns that `audio_file` looks at, as far as the table has them."""
    return [name for name in ("shard", EXTRA, *_KEYS.values()) if name in table.columns]


def own_columns(table: Table) -> dict[str, str]:
    """The input's own columns, without those that say where the audio is; `own_values` finds them again."""
    known = {*CLIP_COLUMNS, *COST_COLUMNS, EXTRA, "ref_text", *_KEYS.values()}
    known.update(*(task.column_names for task in TASKS.values()))
    return {_OWN + name: name for name in table.columns if name not in known}


def own_values(row: Row) -> dict[str, Any]:
    """What the input said of a clip beside its text and its place."""
    return {
        name.removeprefix(_OWN): value
        for name, value in row.items()
        if name.startswith(_OWN) and value is not None
    }


def audio_file(row: Row) -> AudioFile | None:
    """None for a clip inside a tar or a Parquet file."""
    shard = row.get("shard") or ""
    with contextlib.suppress(StorageError, ClipFailedError):
        reader = recognise(path_of(shard))
        if reader is not None and reader.one_clip:
            return AudioFile(shard, shard_and_key(row["clip_id"])[0])
        if isinstance(reader, ManifestReader):
            record = _record(row)
            start_s, _ = reader.part(record)
            name = next((record[key] for key in AUDIO_KEYS if record.get(key)), "")
            return AudioFile(reader.audio_path(record, shard), name, start_s)
    return None


def is_file_of_its_own(clip_id: str) -> bool:
    """Whether a clip is a loose file, as its id tells: `a/x.wav#x`."""
    shard, key = shard_and_key(clip_id)
    reader = recognise(shard)
    return reader is not None and reader.one_clip and PurePosixPath(shard).stem == key


def _record(row: Row) -> dict[str, Any]:
    """What the manifest said of the clip's audio; values that fit no column are in `extra`."""
    record: dict[str, Any] = {}
    with contextlib.suppress(ValueError, RecursionError, TypeError):
        record |= json.loads(row[EXTRA])
    record |= {key: row[name] for key, name in _KEYS.items() if row.get(name) is not None}
    # A column of text has its numbers as they were spelled.
    return record | {key: Cell(record[key]) for key in PARTS if isinstance(record.get(key), str)}
