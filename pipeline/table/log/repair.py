"""Logs as accidents and earlier versions left them: made whole from the data files, when a table is opened.

Damaged records are set aside under `damaged/`. A table of format 0 kept none at all; one of format 1 had a
record in the state `pending` or `committed` for each file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable

from pipeline.storage import Storage, join, name_of
from pipeline.table.log.records import FileRecord, Records, parse, read_texts
from pipeline.table.log.writer import count_file
from pipeline.table.reader import read_batches, visible_names

_COUNTED = ["shard", "clip_id", "error"]
_OTHERS = "others"  # the run of files that no run's id names
_LOG = logging.getLogger(__name__)


def mend(records: Records) -> None:
    """Sets damaged records aside, and counts the files again that they may have named."""
    storage = records.storage
    for uri, text in read_texts(records.listed(), storage).items():
        lines = parse(uri, text)
        if len(lines) == len(text.splitlines()):
            continue
        name = name_of(uri).removesuffix(".jsonl")
        run_id, prefix = name, f"{name}-"
        if not records.is_merged(uri):  # of a task
            run_id = uri.split("/")[-2]
            prefix = f"{run_id}-{name}-"
        named = {record.file for record in records.committed()}
        noted = {file for _, files in records.notes() for file in files}
        seen = [file for file in visible_names(records.output, storage) if file.startswith(prefix)]
        storage.write_bytes(join(records.home, "damaged", f"{run_id}-{name}.jsonl"), text.encode())
        found = [_counted(run_id, file, records) for file in seen if file not in named | noted]
        records.write(uri, [*lines, *found])
        _LOG.warning("%s was damaged and is mended: %d files counted again", uri, len(found))


def remove_unfinished(home: str, storage: Storage, mine: Callable[[str], bool], *, shared: bool) -> None:
    """Removes files that were being written when a job died.

    Args:
        mine: whether nobody else may work on a run of this id.
        shared: other lanes may be writing `table.json`. Locks may be written at any time by anybody.
    """
    others = ("lock", "table") if shared else ("lock",)
    for uri in storage.list_files(home, recursive=True):
        path = uri.removeprefix(f"{home}/").removeprefix(".").replace("/.", "/")
        runs = [part.split(".")[0] for part in path.split("/")]
        if path.endswith(".tmp") and not path.startswith(others) and all(map(mine, runs)):
            storage.remove(uri)


def adopt(records: Records, version: int, runs: Iterable[str], closed: Iterable[str]) -> None:
    """Gives the files of a table of an earlier version records of this one."""
    by_run: dict[str, list[FileRecord]] = {}
    pending: dict[str, list[str]] = {}
    for record, committed in earlier_files(records, version, runs, closed):
        if committed:
            by_run.setdefault(record.run_id, []).append(record)
        else:
            pending.setdefault(record.run_id, []).append(record.file)
    for run_id, files in pending.items():
        records.intend(run_id, files)
    for run_id, found in by_run.items():
        records.remove(run_id, records.merge(run_id, found))
    for uri in records.listed(".json"):
        records.storage.remove(uri)


def earlier_files(
    records: Records, version: int, runs: Iterable[str], closed: Iterable[str]
) -> list[tuple[FileRecord, bool]]:
    """The files of a table of an earlier version, and whether they are committed."""
    return _unrecorded(records, runs, closed) if version == 0 else _recorded(records)


def _recorded(records: Records) -> list[tuple[FileRecord, bool]]:
    """Format 1. A file with a line and a record of its own has the latter: it is the younger one."""
    merged, singles = (
        read_texts(records.listed(ending), records.storage).values() for ending in (".jsonl", ".json")
    )
    found = {}
    for line in [*(line for text in merged for line in text.splitlines()), *singles]:
        record = json.loads(line)
        state = record.pop("state", "committed")
        found[record["file"]] = FileRecord(**record), state == "committed"
    return list(found.values())


def _unrecorded(
    records: Records, runs: Iterable[str], closed: Iterable[str]
) -> list[tuple[FileRecord, bool]]:
    """Format 0. Runs that are over have all files of their name. Of killed ones count those that Ray's commit
    files name, and its pending ones name those to remove; others are left alone."""
    commits = records.storage.list_files(join(records.home, "commit"), recursive=True)
    marks = {name_of(uri).removesuffix(".parquet") for uri in commits}
    names, over = list(runs), {*closed, _OTHERS}
    found = []
    for file in visible_names(records.output, records.storage):
        run_id = next((run_id for run_id in names if file.startswith(f"{run_id}_")), _OTHERS)
        task = file.rsplit("-", 1)[0]  # Ray: <task>-<part>.parquet, after the mark <task>.parquet
        if run_id in over or task in marks:
            found.append((_counted(run_id, file, records), True))
        elif f"{task}.pending" in marks:
            found.append((FileRecord(run_id, file), False))
    return found


def _counted(run_id: str, file: str, records: Records) -> FileRecord:
    uri = join(records.output, file)
    size = records.storage.info(uri).size
    return count_file(run_id, file, size, read_batches(uri, records.storage, _COUNTED))
