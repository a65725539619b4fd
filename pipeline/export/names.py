"""Names of clips where not every character may stand: fields of lines, and files of any filesystem."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain, count

from pipeline.clip_names import percent, percent_match, shard_and_key
from pipeline.export.audio_files import is_file_of_its_own

_UNSAFE_IN_FILE = re.compile(r'[\\:*?"<>|%#]|^[. ]|[. ]$')
# Windows takes these for devices, with any extension.
_DEVICE = re.compile(
    r"^(?=(?:con|prn|aux|nul|conin\$|conout\$|clock\$|(?:com|lpt)[0-9¹²³]) *(?:\.|$)).", re.IGNORECASE
)
_PART_BYTES = 180  # of one part of a path; filesystems end at 255, and a file in the making has a longer name
_PATH_BYTES = 700  # of the whole; object stores end at 1024


def file_names(clip_id: str, extension: str) -> list[str]:
    """The relative paths that a clip's file may have, the best first; none leads upwards.

    `a/x.wav#x` has `a/x.srt`, so that players find it beside `a/x.wav`, else `a/x.wav.srt`; what is inside of
    another file has that as a folder: `a/b.tar#key` is `a/b.tar/key.srt`.
    """
    shard, key = shard_and_key(clip_id)
    if not is_file_of_its_own(clip_id):
        return [_path([*shard.split("/"), *key.split("/")], extension, clip_id)]
    *folders, name = shard.split("/")
    return [_path([*folders, last], extension, clip_id) for last in (key, name)]


class UniqueNames:
    """Gives each name once, however a filesystem compares them; in a file, as tables have many rows."""

    def __init__(self, extension: str) -> None:
        self._ending = f".{extension}"
        self._database = sqlite3.connect("")  # a temporary file, deleted when closed
        self._database.execute("CREATE TABLE taken (name TEXT PRIMARY KEY) WITHOUT ROWID")

    def take(self, names: Sequence[str]) -> str:
        """The first of `names` that is free and looks like none that was taken; else the last one, with "~2",
        "~3" before its extension."""
        return next(name for name in chain(names, self._variants(names[-1])) if self._is_free(name))

    def close(self) -> None:
        self._database.close()

    def _is_free(self, name: str) -> bool:
        alike = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        added = self._database.execute("INSERT OR IGNORE INTO taken VALUES (?)", (alike,))
        return added.rowcount == 1

    def _variants(self, name: str) -> Iterator[str]:
        return (f"{name.removesuffix(self._ending)}~{number}{self._ending}" for number in count(2))


def _path(names: Sequence[str], extension: str, clip_id: str) -> str:
    *folders, last = names
    # A folder must never have the name of another clip's file.
    as_file = re.compile(rf"\.(?={re.escape(extension)}$)", re.IGNORECASE)
    parts = [as_file.sub("%2E", _part(name)) for name in folders if name]
    path = "/".join([*parts, _part(last) or "_"])
    if len(path.encode()) > _PATH_BYTES:
        path = _shortened(path.replace("/", "%2F"), clip_id)
    return f"{path}.{extension}"


def _part(name: str) -> str:
    """One part of a path, safe and not too long."""
    safe = _UNSAFE_IN_FILE.sub(percent_match, name)
    safe = "".join(char if char.isprintable() else percent(char) for char in safe)
    return _shortened(_DEVICE.sub(percent_match, safe), name)


def _shortened(name: str, original: str) -> str:
    """`name` itself, or its beginning and a digest of the original where it is too long."""
    if len(name.encode()) <= _PART_BYTES:
        return name
    digest = hashlib.sha256(original.encode(errors="surrogateescape")).hexdigest()[:16]
    beginning = name.encode()[: _PART_BYTES - 17].decode(errors="ignore")
    return f"{beginning}~{digest}"
