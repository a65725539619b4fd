"""Where a table's log lies: beside it, since many readers of a directory take all that lies there."""

from __future__ import annotations

from pipeline.corpus.aside import is_of_log
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError, join, name_of

INSIDE = "_run"


def log_home(output: str, storage: Storage) -> str:
    """`_<name>.runs` beside the output; `_run` inside it where tables of earlier versions have it, and where
    nothing can lie beside it: a bucket, a mount point, a folder of somebody else's."""
    inside = join(output, INSIDE)
    # Whatever link the output is reached by.
    beside = _beside(storage.real(output).rstrip("/")) or inside
    if storage.exists(inside):
        return inside
    if not storage.exists(beside) and storage.stands_alone(output):
        return inside
    return beside


def require_outside_tables(given: str, place: str, storage: Storage, table: str | None = None) -> None:
    """Raises JobError for a place that is, or lies in, a table or the log of one.

    Args:
        given: the option and its value, for the message.
        table: one that may have no log.
    """
    folder = storage.real(place).rstrip("/")
    if table and storage.is_dir(table) and f"{folder}/".startswith(f"{storage.real(table).rstrip('/')}/"):
        raise JobError(
            f"{given} lies in the table {table}, where nothing else may lie; choose a place outside."
        )
    while "/" in folder:
        name = name_of(folder)
        itself = [folder] if is_of_log(f"{name}/") else []
        for log in (*itself, join(folder, INSIDE), _beside(folder)):
            if log and _is_of_table(log, storage):
                raise JobError(
                    f"{given} lies in a table or in its log ({log}), where nothing else may lie; "
                    "choose a place outside."
                )
        folder = folder.rpartition("/")[0].rstrip("/")


def _beside(folder: str) -> str | None:
    parent, _, name = folder.rpartition("/")
    return join(parent or "/", f"_{name}.runs") if name else None


def _is_of_table(log: str, storage: Storage) -> bool:
    try:
        return storage.exists(join(log, "table.json"))
    except StorageError:  # the folders above may be forbidden
        return False
