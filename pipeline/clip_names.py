"""How lists that were made elsewhere (RTTM, trials) may name a clip."""

from __future__ import annotations


def names_of(clip_id: str) -> list[str]:
    """The names of a clip, the surest first: its clip_id, its shard, its key, the key without folders.

    `calls/a.tar#2024/x` is also known as `calls/a.tar`, `2024/x` and `x`. For a loose file, `calls/b.wav#b`,
    these are its path and its stem. Names other than the clip_id may belong to several clips.
    """
    shard, _, key = clip_id.partition("#")
    names = (clip_id, shard, key, key.rsplit("/", 1)[-1])
    return list(dict.fromkeys(name for name in names if name))
