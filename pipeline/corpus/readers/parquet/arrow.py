"""Tables of Arrow's IPC formats: what `save_to_disk` of `datasets` writes, and Feather."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.readers.base import TABLE_BYTES, TABLE_ROWS, Reader, broken, shard_error, shard_row
from pipeline.corpus.readers.parquet.columns import columns_of
from pipeline.corpus.readers.parquet.rows import Rows, passing
from pipeline.storage import Storage, StorageError, StorageFile, name_of, path_of, resolve

STATE, DICTIONARY = "state.json", "dataset_dict.json"
_FILE_FORMAT = b"ARROW1"
_NOTHING = Passthrough(pa.schema([]), frozenset())


class ArrowReader(Reader):
    """*.arrow with an audio column. In a folder of `save_to_disk` those that its `state.json` names.

    A row's number in the file is its clip's key, as in Parquet.
    """

    name = "arrow"
    endings = (".arrow", ".feather")
    lists_files = True

    def is_doubtful(self, name: str) -> bool:
        return True

    def is_one(self, shard: Shard, storage: Storage) -> bool:
        """`datasets` keeps what it computes beside its data, in files of the same ending."""
        state = _state(shard, storage)
        if state is not None and name_of(path_of(shard.uri)) not in _files(state, "_data_files"):
            return False
        try:
            with storage.open(shard.uri) as file:
                return columns_of(_open(file).schema).audio is not None
        except StorageError:
            raise
        except Exception:  # whatever Arrow makes of damage: reading the shard of a data set says it
            return state is not None

    def columns(self, shard: Shard, storage: Storage) -> pa.Schema:
        try:
            with storage.open(shard.uri) as file:
                schema = _open(file).schema
        except StorageError as problem:
            if problem.not_delivered:
                raise
            return pa.schema([])
        except Exception:  # whatever Arrow makes of damage: reading the shard says it
            return pa.schema([])
        return passing(schema, columns_of(schema), _split(_state(shard, storage), shard, storage))

    def sources(self, shard: Shard, storage: Storage, wanted: Callable[[str], bool]) -> Iterator[str]:
        for table in self.tables(shard, storage, _NOTHING):
            found = table["source"].drop_null().to_pylist()
            yield from (source for source in found if wanted(source))

    def tables(
        self, shard: Shard, storage: Storage, passthrough: Passthrough, slice: Any = None
    ) -> Iterator[pa.Table]:
        try:
            state = _state(shard, storage)
            if state is not None and _files(state, "_indices_data_files"):
                message = (
                    f"{shard.name} belongs to a data set with an index of its rows: save it again after "
                    "flatten_indices()"
                )
                yield shard_row(shard, broken(message), passthrough)
                return
            with storage.open(shard.uri) as file:
                opened = _open(file)
                rows = Rows(columns_of(opened.schema), shard, passthrough, _split(state, shard, storage))
                first = 0
                for batch in _batches(opened):
                    for piece in _pieces(batch):
                        yield rows.table(piece, first)
                        first += piece.num_rows
        except Exception as problem:  # what Arrow makes of damage, or a StorageError
            yield shard_row(shard, shard_error(shard, problem), passthrough)


def _open(file: StorageFile) -> pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader:
    is_file = file.read(len(_FILE_FORMAT)) == _FILE_FORMAT
    file.seek(0)
    return pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)


def _batches(opened: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(opened, pa.ipc.RecordBatchFileReader):
        yield from (opened.get_batch(number) for number in range(opened.num_record_batches))
    else:
        yield from opened


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Runs of rows of about `TABLE_BYTES`."""
    per_row = max(1, batch.nbytes // max(1, batch.num_rows))
    count = min(TABLE_ROWS, max(1, TABLE_BYTES // per_row))
    yield from (batch.slice(first, count) for first in range(0, batch.num_rows, count))


def _state(shard: Shard, storage: Storage) -> dict[str, Any] | None:
    """What `save_to_disk` says of the folder; None where it is none of its."""
    found = _json(resolve(shard.uri, STATE), storage)
    return found if "_data_files" in found else None


def _files(state: Mapping[str, Any], key: str) -> list[str]:
    files = state.get(key) or []
    return [str(file.get("filename")) for file in files if isinstance(file, dict)]


def _split(state: Mapping[str, Any] | None, shard: Shard, storage: Storage) -> str | None:
    """The folder's name where it is one of a `DatasetDict`, else what its data set says."""
    if state is None:
        return None
    folder = path_of(shard.uri).split("/")[-2]
    if folder in (_json(resolve(shard.uri, f"../{DICTIONARY}"), storage).get("splits") or ()):
        return folder
    split = state.get("_split")
    return split if isinstance(split, str) else None


def _json(uri: str, storage: Storage) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(storage.read_bytes_or_none(uri) or b"null")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
