"""Names of clips where not every character may stand: fields of lines, and files of any filesystem."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import unicodedata
from collections.abc import Iterator

from pipeline.clip_names import percent, percent_match, shard_and_key

_UNSAFE_IN_FILE = re.compile(r'[\\:*?"<>|%#]|^[. ]|[. ]$')
# Windows takes these for devices, with any extension.
_DEVICE = re.compile(
    r"^(?=(?:con|prn|aux|nul|conin\$|conout\$|clock\$|(?:com|lpt)[0-9¹²³]) *(?:\.|$)).", re.IGNORECASE
)
_PART_BYTES = 180  # of one part of a path; filesystems end at 255, and a file in the making has a longer name
_PATH_BYTES = 700  # of the whole; object stores end at 1024


def file_name(clip_id: str, extension: str) -> str:
    """The relative path of a clip's file: `a/b.tar#key` is `a/b.tar/key.srt`. It never leads upwards."""
    shard, key = shard_and_key(clip_id)
    *folders, last = [*shard.split("/"), *key.split("/")]
    # A folder must never have the name of another clip's file.
    as_file = re.compile(rf"\.(?={re.escape(extension)}$)", re.IGNORECASE)
    parts = [as_file.sub("%2E", _part(name)) for name in folders if name]
    path = "/".join([*parts, _part(last) or "_"])
    if len(path.encode()) > _PATH_BYTES:
        path = _shortened(path.replace("/", "%2F"), clip_id)
    return f"{path}.{extension}"


class UniqueNames:
    """Gives each name once, however a filesystem compares them; in a file, as tables have many rows."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a temporary file, deleted when closed
        self._database.execute("CREATE TABLE taken (name TEXT PRIMARY KEY) WITHOUT ROWID")

    def take(self, name: str) -> str:
        """`name`, or with "~2", "~3" before its extension where it, or one that looks alike, was taken."""
        return next(candidate for candidate in _variants(name) if self._is_free(candidate))

    def close(self) -> None:
        self._database.close()

    def _is_free(self, name: str) -> bool:
        alike = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        added = self._database.execute("INSERT OR IGNORE INTO taken VALUES (?)", (alike,))
        return added.rowcount == 1


def _variants(name: str) -> Iterator[str]:
    yield name
    stem, _, extension = name.rpartition(".")
    number = 2
    while True:
        yield f"{stem}~{number}.{extension}"
        number += 1


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
