"""The audio of chosen clips: read from their shards once more, and packed as Opus."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import soundfile

from pipeline.audio.recording import Recording
from pipeline.audio.resampling import SAMPLE_RATE
from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.listing import shard_at
from pipeline.corpus.readers import READERS, recognise
from pipeline.errors import ClipFailedError, JobError
from pipeline.report.clips import LONGEST_S
from pipeline.report.table import Row
from pipeline.storage import Storage, StorageError, is_remote, path_of, without_credentials
from pipeline.table.reader import name_in_id

# libsndfile has no bit rate for Opus but a level from 256 (0) to 6 kbit/s (1): 24 kbit/s for one channel.
_LEVEL = 0.928
_BYTES_A_SECOND = 3_000
_STREAMED_BYTES = 2 << 30  # of shards in object stores that can only be read from their beginning
_NOTHING_ELSE = Passthrough(pa.schema([]), frozenset())


@dataclass(frozen=True)
class Sound:
    """What one can hear of a clip.

    Attributes:
        opus: Ogg with Opus, one channel; None: not inside the page.
        href: where the audio lies, if that is a file a browser can open.
        note: why there is nothing, or less than all, inside.
    """

    opus: bytes | None = None
    href: str | None = None
    note: str = ""


def sounds(clips: Sequence[Row], storage: Storage, channel: str, limit: int) -> dict[str, Sound]:
    """What one can hear of each clip, by its id.

    Args:
        clips: as `clips.described` tells of them; the first of them are those that are inside.
        channel: of several, as of a `Recording`.
        limit: bytes of audio, about.
    """
    inside = set()
    for clip in clips:
        size = min(clip.get("seconds") or LONGEST_S, LONGEST_S) * _BYTES_A_SECOND
        if size <= limit:
            limit -= int(size)
            inside.add(clip["id"])
    by_shard: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        by_shard[clip["shard"]].append(clip["id"])
    found: dict[str, Sound] = {}
    left = _STREAMED_BYTES
    for uri, clip_ids in by_shard.items():
        wanted = inside.intersection(clip_ids)
        try:
            shard = _shard(uri, clip_ids[0], storage) if wanted else None
            if shard is None:
                found |= dict.fromkeys(clip_ids, _outside(uri))
                continue
            if is_remote(uri) and shard.format == "tar":
                left -= shard.size
                if left < 0:
                    found |= dict.fromkeys(clip_ids, Sound(note="its shard is too large to be read again"))
                    continue
            for row in _rows(shard, clip_ids, storage):
                found[row["clip_id"]] = _sound(row, storage, channel, pack=row["clip_id"] in wanted)
        except (StorageError, JobError) as problem:
            absent = Sound(note=f"the input cannot be read any more: {problem}")
            found = dict.fromkeys(clip_ids, absent) | found
    gone = Sound(note="it is not in the input any more")
    return {clip["id"]: found.get(clip["id"], gone) for clip in clips}


def _shard(uri: str, clip_id: str, storage: Storage) -> Shard | None:
    """The shard as its reader knows it; None where it is no longer told what it is."""
    name = name_in_id(clip_id, uri)
    return None if name is None else shard_at(uri, name, storage)


def _rows(shard: Shard, clip_ids: Sequence[str], storage: Storage) -> Iterator[Mapping[str, Any]]:
    """The clips as the input has them; no more of the shard is read than it takes."""
    missing, reader = set(clip_ids), READERS[shard.format]
    for slice in reader.slices_with(shard, storage, missing):
        for table in reader.tables(shard, storage, _NOTHING_ELSE, slice):
            for place, clip_id in enumerate(table["clip_id"].to_pylist()):
                if clip_id in missing:
                    missing.remove(clip_id)
                    yield table.slice(place, 1).to_pylist()[0]
            if not missing:
                return


def _sound(row: Mapping[str, Any], storage: Storage, channel: str, *, pack: bool) -> Sound:
    href = None if row["source"] is None else _href(row["source"])
    if row["error"] is not None:
        return Sound(href=href, note=row["error"]["message"])
    if not pack:
        return Sound(href=href, note="the page has no room left for it")
    try:
        opus, whole = _opus(row, storage, channel)
    except ClipFailedError as failed:
        return Sound(href=href, note=failed.error.message)
    except StorageError as problem:
        return Sound(href=href, note=str(problem))
    except Exception as problem:  # decoders of damaged bytes raise what they like
        return Sound(href=href, note=f"it cannot be read: {type(problem).__name__}")
    return Sound(opus, href, "" if whole else f"the first {LONGEST_S / 60:g} minutes")


def _opus(row: Mapping[str, Any], storage: Storage, channel: str) -> tuple[bytes, bool]:
    """The clip, and whether it is all of it."""
    packed = io.BytesIO()
    with ExitStack() as files:
        data: Any = row["audio"]
        if data is None:
            data = files.enter_context(storage.open(row["source"]))
        recording = files.enter_context(
            Recording(data, channel=channel, start_s=row["start_s"], length_s=row["length_s"])
        )
        file = files.enter_context(
            soundfile.SoundFile(packed, "w", SAMPLE_RATE, 1, "OPUS", format="OGG", compression_level=_LEVEL)
        )
        left = round(LONGEST_S * SAMPLE_RATE)
        for block in recording.blocks():
            file.write(block[:left])
            left -= len(block)
            if left < 0:
                break
    return packed.getvalue(), left >= 0


def _outside(uri: str) -> Sound:
    """Of a shard that is not read: a loose file can still be linked to."""
    reader = recognise(path_of(uri))
    href = _href(uri) if reader is not None and reader.one_clip else None
    return Sound(href=href, note="the page has no room left for it")


def _href(source: str) -> str | None:
    """Where a browser finds it; None for what only other programs can open."""
    if not is_remote(source):
        return Path(path_of(source)).as_uri()
    shown = without_credentials(source)
    return shown if shown.startswith("http") else None
