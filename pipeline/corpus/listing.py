"""Which shards an input holds: listing, recognising the layout, naming."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pipeline.errors import JobError
from pipeline.storage import Storage, path_of, uri_of

_SOUNDFILE = (
    "wav",
    "flac",
    "mp3",
    "ogg",
    "oga",
    "opus",
    "aiff",
    "aif",
    "aifc",
    "au",
    "caf",
    "w64",
    "rf64",
    "sph",
)
_FFMPEG = "m4a", "mp4", "aac", "webm", "mka", "wma", "amr", "3gp", "ac3"
AUDIO_EXTENSIONS = frozenset({*_SOUNDFILE, *_FFMPEG})
_MANIFEST = (".jsonl", ".ndjson", ".jsonlines")
_TAR = (".tar", ".tar.gz", ".tgz")


class Format(StrEnum):
    """The four layouts of input."""

    PARQUET = "parquet"
    TAR = "tar"
    MANIFEST = "manifest"
    AUDIO = "audio"


@dataclass(frozen=True)
class Shard:
    """One file of the input.

    `name` is its path relative to the input, and the first half of its clips' ids; `version` changes when the
    file does (ETag, or size and modification time). `modified` is that time in seconds since 1970 (UTC); None
    where storage tells none.
    """

    uri: str
    name: str
    format: Format
    size: int
    version: str
    modified: float | None = None


def recognise(path: str) -> Format | None:
    """The layout that a file's name promises; None where it promises no audio."""
    name = path.rsplit("/", 1)[-1].lower()
    if name.startswith((".", "_")):
        return None
    if name.endswith(".parquet"):
        return Format.PARQUET
    if name.endswith(_TAR):
        return Format.TAR
    if name.endswith(_MANIFEST):
        return Format.MANIFEST
    _, dot, extension = name.rpartition(".")
    return Format.AUDIO if dot and extension in AUDIO_EXTENSIONS else None


def discover(
    inputs: Sequence[str],
    storage: Storage,
    *,
    outputs: Sequence[str],
    known_names: Mapping[str, str] | None = None,
) -> list[Shard]:
    """All shards of all inputs, each once, in a stable order.

    Args:
        outputs: their files are no input, even if they lie inside one.
        known_names: uri -> name from earlier runs on the same output; ids of clips must not change.

    Raises:
        JobError: no such input, no shard in it, storage that refuses.
    """
    shards: dict[str, Shard] = {}
    for given in inputs:
        uri = storage.normalise(given)
        found = _discover_one(uri, given, storage)
        inside = tuple(output.rstrip("/") + "/" for output in outputs)
        found = [shard for shard in found if not shard.uri.startswith(inside)]
        if not found:
            raise JobError(
                f"--input {given}: no audio shard there. Recognised are *.parquet, *.tar(.gz), "
                f"*.jsonl manifests and audio files ({', '.join(sorted(AUDIO_EXTENSIONS)[:8])}, …)."
            )
        for shard in found:
            shards.setdefault(shard.uri, shard)
    return _with_unique_names(list(shards.values()), known_names or {})


def _discover_one(uri: str, given: str, storage: Storage) -> list[Shard]:
    filesystem, path = storage.filesystem(uri), path_of(uri)
    try:
        if any(sign in path for sign in "*?[") and not filesystem.exists(path):
            found = filesystem.glob(path, detail=True)
            # Names are relative to the part of the path before the first wildcard.
            root = re.split(r"[*?\[]", path, maxsplit=1)[0].rsplit("/", 1)[0]
            if any(info["type"] == "directory" for info in found.values()):
                for name, info in list(found.items()):
                    if info["type"] == "directory":
                        found |= filesystem.find(name, detail=True)
        elif filesystem.isdir(path):
            found, root = filesystem.find(path, detail=True), path.rstrip("/")
        elif filesystem.exists(path):
            found, root = {path: filesystem.info(path)}, path.rsplit("/", 1)[0]
            if recognise(path) is None:
                raise JobError(
                    f"--input {given}: not a kind of file that holds audio here "
                    "(*.parquet, *.tar, *.tar.gz, *.jsonl or an audio file)."
                )
        else:
            raise JobError(f"--input {given}: does not exist.")
    except JobError:
        raise
    except Exception as problem:  # every protocol has exceptions of its own
        raise JobError(f"--input {given}: {storage.explain(given, problem)}.") from problem
    return list(_as_shards(found, root, uri))


def _as_shards(found: Mapping[str, Mapping[str, Any]], root: str, uri: str) -> Iterable[Shard]:
    root = root.rstrip("/")
    for path in sorted(found):
        info = found[path]
        name = path[len(root) :].lstrip("/") if path.startswith(root) else path
        hidden = any(part.startswith((".", "_")) for part in name.split("/"))
        kind = recognise(path)
        if info["type"] == "file" and kind is not None and not hidden:
            size = int(info.get("size") or 0)
            yield Shard(uri_of(uri, path), name, kind, size, _version(info, size), _modified(info))


def _version(info: Mapping[str, Any], size: int) -> str:
    tag = info.get("ETag") or info.get("etag")
    if tag:
        return str(tag).strip('"')
    return f"{size}-{_changed(info) or ''}"


def _changed(info: Mapping[str, Any]) -> Any:
    return info.get("mtime") or info.get("LastModified") or info.get("last_modified")


def _modified(info: Mapping[str, Any]) -> float | None:
    """Filesystems tell times as seconds, as `datetime` or as ISO 8601; without a zone they mean UTC."""
    changed = _changed(info)
    if isinstance(changed, str):
        try:
            changed = datetime.fromisoformat(changed)
        except ValueError:
            return None
    if isinstance(changed, datetime):
        return (changed if changed.tzinfo else changed.replace(tzinfo=UTC)).timestamp()
    return float(changed) if isinstance(changed, int | float) else None


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
        longer = {uri: _one_part_more(path_of(uri), names[uri]) for uri in clashing}
        if all(names[uri] == name for uri, name in longer.items()):
            break
        names |= longer
    return [replace(shard, name=known.get(shard.uri) or names[shard.uri]) for shard in shards]


def _one_part_more(path: str, name: str) -> str:
    before = path[: len(path) - len(name)].rstrip("/")
    return f"{before.rsplit('/', 1)[-1]}/{name}" if before else name
