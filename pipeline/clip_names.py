"""How lists of clips (RTTM, trials, CTM) name one, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError

# Blanks and what else some reader of lines stumbles over; surrogates stand for bytes that are no UTF-8.
_UNSAFE_IN_FIELD = re.compile(r'[\s\x00-\x1f\x7f-\x9f\ufeff\ud800-\udfff%"<>]|^[;#]')
_ENDING = re.compile(r"\.[A-Za-z]\w{1,9}$", re.ASCII)
_LINE_END = re.compile(rb"\r\n|\r|\n")
_FIELD = re.compile(r"[^ \t\v\f]+")  # other blanks of Unicode may stand in a name
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def shard_and_key(clip_id: str) -> tuple[str, str]:
    """The halves of a clip_id, both of which may hold a `#`.

    The first that is a loose file with its stem as key, else the first whose shard ends as a file does.
    """
    cuts = [match.start() for match in re.finditer("#", clip_id)]
    halves = [(clip_id[:at], clip_id[at + 1 :]) for at in cuts] or [(clip_id, "")]
    loose = (half for half in halves if PurePosixPath(half[0]).stem == half[1])
    files = (half for half in halves if _ENDING.search(half[0]))
    return next(loose, None) or next(files, halves[0])


def names_of(clip_id: str) -> dict[str, int]:
    """The names of a clip, each with its place among them: 0 is the surest.

    They are its clip_id, its shard, its key, and the key without folders: `calls/a.tar#2024/x` is also known
    as `calls/a.tar`, `2024/x` and `x`. Each may be spelled as a field of a line (`encode_field`), or, less
    surely, plain. Names other than the encoded clip_id may belong to several clips.
    """
    shard, key = shard_and_key(clip_id)
    names: dict[str, int] = {}
    for place, name in enumerate((clip_id, shard, key, key.rsplit("/", 1)[-1])):
        names.setdefault(encode_field(name), 2 * place)
        names.setdefault(name, 2 * place + 1)
    names.pop("", None)
    return names


def encode_field(text: str) -> str:
    """`text` as one field of a line: blanks and a few more are percent-encoded; any URL decoder reads it."""
    return _UNSAFE_IN_FIELD.sub(percent_match, text)


def percent(text: str) -> str:
    """Every byte of `text` percent-encoded."""
    return "".join(f"%{byte:02X}" for byte in text.encode(errors="surrogateescape"))


def percent_match(match: re.Match[str]) -> str:
    return percent(match[0])


def read_fields(flag: str, uri: str, storage: Storage) -> Iterator[tuple[int, list[str]]]:
    """The lines of a list that are not blank: their numbers, from 1, and their fields.

    Args:
        flag: that names the file.

    Raises:
        JobError: no such file, or no text in UTF-8.
    """
    try:
        data = storage.read_bytes(uri)
    except StorageError as problem:
        raise JobError(f"{flag}: {problem}.") from problem
    if data.startswith(_UTF_16) or b"\0" in data:
        raise JobError(
            f"{flag} {uri} is not a text file in UTF-8 but, by its bytes, UTF-16: save it as UTF-8."
        )
    for number, line in enumerate(_LINE_END.split(data), 1):
        try:
            text = line.decode().removeprefix("\ufeff")  # a byte order mark, or where files were joined
        except UnicodeDecodeError as problem:
            raise JobError(f"{flag} {uri} is not a text file in UTF-8: see line {number}.") from problem
        if fields := _FIELD.findall(text):
            yield number, fields
