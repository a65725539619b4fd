"""`--overwrite`: a table is deleted. What is to go is written down first, so that the next start goes on."""

from __future__ import annotations

import json
from collections.abc import Callable

from pipeline.errors import JobError
from pipeline.storage import Storage, join
from pipeline.table.reader import data_files

INTENDED = "overwrite.json"


def intend_to_clear(output: str, home: str, storage: Storage) -> None:
    """Only what runs wrote will go; Parquet files in folders below are somebody else's."""
    files = json.dumps({"files": data_files(output, storage)}, ensure_ascii=False)
    storage.write_bytes(join(home, INTENDED), files.encode("utf-8", "surrogateescape"))


def is_cut_off(home: str, storage: Storage) -> bool:
    return storage.exists(join(home, INTENDED))


def clear(home: str, storage: Storage, check: Callable[[], None]) -> None:
    """Removes the files that were intended to go, and the log but for the lock.

    Args:
        check: raises where the lock was lost meanwhile.

    Raises:
        JobError: what says which files those are is damaged.
    """
    intended = join(home, INTENDED)
    data = storage.read_bytes_or_none(intended)
    if data is None:
        return
    try:
        files = json.loads(data.decode("utf-8", "surrogateescape"))["files"]
    except (ValueError, KeyError, TypeError) as problem:
        raise JobError(
            f"{intended}, which says what an --overwrite was deleting, is damaged; delete the table's "
            f"Parquet files and {home} by hand."
        ) from problem
    for uri in files:
        storage.remove(uri)
    check()  # many files take long
    for uri in storage.list_files(home, recursive=True):
        if uri not in (join(home, "lock.json"), intended):
            storage.remove(uri)
    storage.remove(intended)
