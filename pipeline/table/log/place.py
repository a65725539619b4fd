"""Where a table's log lies: beside it, since many readers of a directory take all that lies there."""

from __future__ import annotations

from pipeline.storage import Storage, join

INSIDE = "_run"


def log_home(output: str, storage: Storage) -> str:
    """`_<name>.runs` beside the output; `_run` inside it where tables of earlier versions have it, and where
    nothing can lie beside it: a bucket, a mount point, a folder of somebody else's."""
    inside = join(output, INSIDE)
    # Whatever link the output is reached by.
    parent, _, name = storage.real(output).rstrip("/").rpartition("/")
    beside = join(parent or "/", f"_{name}.runs") if name else inside
    if storage.exists(inside):
        return inside
    if not storage.exists(beside) and storage.stands_alone(output):
        return inside
    return beside
