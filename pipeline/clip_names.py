"""How lists of clips (RTTM, trials, CTM) may name one."""

from __future__ import annotations

import re

_UNSAFE_IN_FIELD = re.compile(r'[\s\x00-\x1f\x7f-\x9f%"<>]|^;')


def names_of(clip_id: str) -> list[str]:
    """The names of a clip, the surest first: its clip_id, its shard, its key, the key without folders.

    `calls/a.tar#2024/x` is also known as `calls/a.tar`, `2024/x` and `x`. For a loose file, `calls/b.wav#b`,
    these are its path and its stem. Names other than the clip_id may belong to several clips.
    """
    shard, _, key = clip_id.partition("#")
    names = (clip_id, shard, key, key.rsplit("/", 1)[-1])
    return list(dict.fromkeys(name for name in names if name))


def encode_field(text: str) -> str:
    """`text` as one field of a line: blanks and a few more are percent-encoded; `unquote` gives it back."""
    return _UNSAFE_IN_FIELD.sub(percent_match, text)


def percent(text: str) -> str:
    """Every byte of `text` percent-encoded."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


def percent_match(match: re.Match[str]) -> str:
    return percent(match[0])
