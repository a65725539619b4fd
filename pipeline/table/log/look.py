"""Files of the table that somebody deleted, changed or copied by hand: whoever did is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from pipeline.errors import JobError
from pipeline.table.log.records import Records
from pipeline.table.reader import visible_sizes

_LOG = logging.getLogger(__name__)
_SHOWN = 5


def look_for_files(records: Records, runs: Callable[[], Iterable[str]]) -> None:
    """Compares the files that lie in the output with those that the log names.

    Args:
        runs: asks for the ids of those that nobody else may work on. Their files are told of where the log
            does not name them; files of other names are somebody else's.

    Raises:
        JobError: files are gone, or not as they were written.
    """
    named = _named(records)
    seen = visible_sizes(records.output, records.storage)
    amiss = _amiss(named, seen)
    if amiss:  # unless a job of another lane put others in their place meanwhile
        amiss &= _named(records).keys()
    if amiss:
        file = min(amiss)
        what = f"has {seen[file]} bytes, not {named[file]}" if file in seen else "is gone"
        raise JobError(
            f"--output {records.output}: {len(amiss)} of the table's {len(named)} files are gone or not as "
            f"its log {records.home} has them ({file} {what}). Put them back, or give --overwrite."
        )
    if strange := seen.keys() - named.keys():
        noted = {file for _, files in records.notes() for file in files}
        ours = tuple(f"{run_id}{sign}" for run_id in runs() for sign in "-_")
        strange -= noted | _named(records).keys()
        if lost := sorted(file for file in strange if file.startswith(ours)):
            _LOG.warning(
                "%s: %d files of this table are not in its log %s, and their rows do not count (%s). Was the "
                "log copied before they were written, or not to its end? Copy it again, or delete them.",
                records.output,
                len(lost),
                records.home,
                ", ".join([*lost[:_SHOWN], *(["..."] if lost[_SHOWN:] else [])]),
            )


def _named(records: Records) -> dict[str, int]:
    return {record.file: record.bytes for record in records.committed()}


def _amiss(named: Mapping[str, int], seen: Mapping[str, int]) -> set[str]:
    return {file for file, size in named.items() if seen.get(file) != size}
