"""`--overwrite`: a table is deleted. What is to go is written down first, so that the next start goes on."""

from __future__ import annotations

import json

from pipeline.storage import Storage, join
from pipeline.table.reader import data_files

INTENDED = "overwrite.json"


def intend_to_clear(output: str, home: str, storage: Storage) -> None:
    """Only what runs wrote will go; Parquet files in folders below are somebody else's."""
    files = json.dumps({"files": data_files(output, storage)}, ensure_ascii=False)
    storage.write_bytes(join(home, INTENDED), files.encode("utf-8", "surrogateescape"))


def is_cut_off(home: str, storage: Storage) -> bool:
    return storage.exists(join(home, INTENDED))


def clear(home: str, storage: Storage) -> None:
    """Removes the files that were intended to go, and the log but for the lock."""
    intended = storage.read_bytes_or_none(join(home, INTENDED))
    if intended is None:
        return
    for uri in json.loads(intended.decode("utf-8", "surrogateescape"))["files"]:
        storage.remove(uri)
    kept = {join(home, "lock.json"), join(home, INTENDED)}
    for uri in storage.list_files(home, recursive=True):
        if uri not in kept:
            storage.remove(uri)
    storage.remove(join(home, INTENDED))
