"""Lhotse's cuts and recordings, as records of a JSON manifest.

What is one file, or a part of one, is read as such. Anything else (a mixture, a transform, one of several
channels) is loaded by the package `lhotse`, from bytes that storage gave: it opens nothing and runs nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from pipeline.corpus.clips import Clip, Load, Shard
from pipeline.corpus.readers.manifest.records import bad_record
from pipeline.errors import ClipFailedError
from pipeline.storage import Storage, resolve

_CUTS = frozenset({"MonoCut", "MultiCut", "MixedCut", "PaddingCut"})
_RECORDING = ("sources", "sampling_rate", "num_samples")
_OF_ONE = ("speaker", "language", "gender")  # of a clip whose supervisions agree
_CARRIED = ("id", "duration", "custom")
_READ = ("file", "url")
_REFUSED = {
    "command": "its audio is what a command prints, and commands are not run: use cuts.save_audios()",
    "shar": "its audio is in a tar of its Shar: give the whole folder, with recording.*.tar",
}


def is_lhotse(record: Mapping[str, Any]) -> bool:
    return record.get("type") in _CUTS or all(key in record for key in _RECORDING)


def clip_of(record: dict[str, Any], identity: str, shard: Shard) -> Clip:
    """A cut, or a recording, as a clip; raises ClipFailedError for what is none."""
    values = values_of(record)
    try:
        source, start_s, length_s = _part(record)
        if source is None:
            files = (source for source in sources_of(record) if source["type"] in _READ)
            places = [resolve(shard.uri, str(source["source"])) for source in files]
            made = Load(places, partial(load, record, shard.uri))
            return Clip(identity, shard.uri, values=values, load=made)
        place = resolve(shard.uri, source)
        return Clip(identity, shard.uri, source=place, start_s=start_s, length_s=length_s, values=values)
    except ClipFailedError as failed:
        return Clip(identity, shard.uri, error=failed.error, values=values)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        error = bad_record(
            f"this is no cut or recording of Lhotse's: {type(problem).__name__} {problem}"
        ).error
        return Clip(identity, shard.uri, error=error, values=values)


def values_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record carries."""
    recording = record.get("recording")
    values = {name: record[name] for name in _CARRIED if record.get(name) is not None}
    if isinstance(recording, dict) and recording.get("id") is not None:
        values["recording_id"] = recording["id"]
    return values | told_by(_supervisions(record))


def told_by(supervisions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Their texts in order of time, what all agree on, and the supervisions themselves."""
    held = sorted(supervisions, key=_start)
    values: dict[str, Any] = {}
    texts = [str(supervision["text"]) for supervision in held if supervision.get("text")]
    if texts:
        values["text"] = " ".join(texts)
    for name in _OF_ONE:
        found = {str(supervision.get(name)) for supervision in held}
        if len(found) == 1 and held[0].get(name) is not None:
            values[name] = str(held[0][name])
    if held:
        values["supervisions"] = held
    return values


def _start(supervision: Mapping[str, Any]) -> float:
    start = supervision.get("start")
    return float(start) if isinstance(start, int | float) else 0.0


def _supervisions(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = record.get("supervisions")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _part(record: Mapping[str, Any]) -> tuple[str | None, float | None, float | None]:
    """(file, start, length); no file where it takes `lhotse`."""
    for source in sources_of(record):
        if (refused := _REFUSED.get(source["type"])) is not None:
            raise bad_record(refused)
    is_cut = "type" in record
    recording = record.get("recording") if is_cut else record
    if is_cut and record["type"] in ("MonoCut", "MultiCut") and recording is None:
        raise bad_record("the cut has no recording")
    if recording is None or recording.get("transforms") or len(recording["sources"]) != 1:
        return None, None, None
    (source,) = recording["sources"]
    channel = record.get("channel", source["channels"])
    wanted = channel if isinstance(channel, list) else [channel]
    if source["type"] not in _READ or wanted != source["channels"]:
        return None, None, None
    start, duration = float(record.get("start", 0)), float(record["duration"])
    if not 0 <= start < float("inf") or not 0 < duration < float("inf"):
        raise bad_record(f"`start` and `duration` must be seconds, and are {start} and {duration}")
    whole = start == 0 and duration > float(recording["duration"]) - 1 / recording["sampling_rate"]
    place = str(source["source"])
    return (place, None, None) if whole else (place, start, duration)


def sources_of(value: Any) -> Iterator[dict[str, Any]]:
    """Every source of every recording inside a record."""
    if isinstance(value, dict):
        held = value.get("sources")
        if isinstance(held, list):
            yield from (source for source in held if isinstance(source, dict))
        for inner in value.values():
            yield from sources_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from sources_of(inner)


def load(record: dict[str, Any], base: str, storage: Storage) -> bytes:
    """The audio of a cut or recording as a WAV file, float32, with all of its channels.

    Raises:
        ClipFailedError: the package `lhotse` is not installed.
        StorageError: a file was not delivered.
    """
    import numpy as np
    import soundfile

    try:
        from lhotse.serialization import deserialize_item
    except ImportError as problem:
        raise bad_record(
            f"more than a part of one file takes lhotse: pip install 'w2vbert[lhotse]' ({problem})"
        ) from problem
    for source in sources_of(record):
        if source["type"] in _READ:
            source["source"] = storage.read_bytes(resolve(base, str(source["source"])))
            source["type"] = "memory"
    item = deserialize_item(record)
    samples = np.atleast_2d(item.load_audio())
    file = io.BytesIO()
    soundfile.write(file, samples.T, item.sampling_rate, format="WAV", subtype="FLOAT")
    return file.getvalue()
