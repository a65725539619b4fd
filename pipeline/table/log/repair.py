"""Logs as accidents and earlier versions left them: made whole from the data files, when a table is opened.

Damaged records are set aside under `damaged/`. A table of format 0 kept none at all; one of format 1 had a
record in the state `pending` or `committed` for each file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable

from pipeline.storage import Storage, join
from pipeline.table.log.records import FileRecord, Records, parse, read_texts, task_of
from pipeline.table.log.writer import count_file
from pipeline.table.reader import read_batches, visible_files

_COUNTED = ["shard", "clip_id", "error"]
_OTHERS = "others"  # the run of files that no run's id names
_LOG = logging.getLogger(__name__)


def mend(records: Records) -> None:
    """Sets damaged records aside, and counts the files again that they may have named."""
    storage, home = records.storage, records.home
    texts = read_texts(
        [uri for uri in storage.list_files(home, recursive=True) if uri.endswith(".jsonl")], storage
    )
    for uri, text in texts.items():
        lines = parse(uri, text)
        if len(lines) == len(text.splitlines()):
            continue
        name = uri.rsplit("/", 1)[-1].removesuffix(".jsonl")
        merged = uri.rsplit("/", 1)[0] == home
        run_id = name if merged else uri.split("/")[-2]
        task = None if merged else name
        named = {record.file for record in records.committed()}
        noted = {file for _, files in records.notes() for file in files}
        lost = [
            file
            for file in _data_files(records.output, storage)
            if file.startswith(f"{run_id}-")
            and file not in named | noted
            and task in (None, task_of(run_id, file))
        ]
        aside = join(home.rsplit("/", 1)[0], "damaged", f"{run_id}-{name}.jsonl")
        storage.write_bytes(aside, text.encode())
        found = [_counted(run_id, file, records) for file in lost]
        text = "".join(f"{record.to_json()}\n" for record in [*lines, *found])
        storage.write_bytes(uri, text.encode())
        _LOG.warning("%s was damaged and is mended: %d files counted again", uri, len(found))


def remove_unfinished(home: str, storage: Storage, mine: Callable[[str], bool], *, shared: bool) -> None:
    """Removes files that were being written when a job died.

    Args:
        mine: whether nobody else may work on a run of this id.
        shared: lanes are at work, which all write `table.json`; locks everybody writes at any time.
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
        records.merge(run_id, found)
    for uri in records.storage.list_files(records.home, recursive=True):
        if uri.endswith(".json"):
            records.storage.remove(uri)


def earlier_files(
    records: Records, version: int, runs: Iterable[str], closed: Iterable[str]
) -> list[tuple[FileRecord, bool]]:
    """The files of a table of an earlier version, and whether they are committed."""
    return _unrecorded(records, runs, closed) if version == 0 else _recorded(records)


def _recorded(records: Records) -> list[tuple[FileRecord, bool]]:
    """Format 1. A file with a line and a record of its own has the latter: it is the younger one."""
    uris = records.storage.list_files(records.home, recursive=True)
    singles = [
        json.loads(text)
        for text in read_texts([u for u in uris if u.endswith(".json")], records.storage).values()
    ]
    merged = read_texts([uri for uri in uris if uri.endswith(".jsonl")], records.storage).values()
    found = {}
    for line in [*(json.loads(line) for text in merged for line in text.splitlines()), *singles]:
        state = line.pop("state", "committed")
        found[line["file"]] = FileRecord(**line), state == "committed"
    return list(found.values())


def _unrecorded(
    records: Records, runs: Iterable[str], closed: Iterable[str]
) -> list[tuple[FileRecord, bool]]:
    """Format 0. Runs that are over have all files of their name. Of killed ones count those that Ray's commit
    files name, and its pending ones name those to remove; others are left alone."""
    commits = join(records.home.rsplit("/", 1)[0], "commit")
    marks = {
        uri.rsplit("/", 1)[-1].removesuffix(".parquet")
        for uri in records.storage.list_files(commits, recursive=True)
    }
    names, over = list(runs), {*closed, _OTHERS}
    found = []
    for file in _data_files(records.output, records.storage):
        run_id = next((run_id for run_id in names if file.startswith(f"{run_id}_")), _OTHERS)
        task = file.rsplit("-", 1)[0]  # Ray: <task>-<part>.parquet, after the mark <task>.parquet
        if run_id in over or task in marks:
            found.append((_counted(run_id, file, records), True))
        elif f"{task}.pending" in marks:
            found.append((FileRecord(run_id, file), False))
    return found


def _data_files(output: str, storage: Storage) -> list[str]:
    return [uri.rsplit("/", 1)[-1] for uri in visible_files(output, storage)]


def _counted(run_id: str, file: str, records: Records) -> FileRecord:
    uri = join(records.output, file)
    size = records.storage.info(uri).size
    return count_file(run_id, file, size, read_batches(uri, records.storage, _COUNTED))
