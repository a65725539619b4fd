"""What of an input is left aside: hidden names, tables, and kinds of files that hold no audio."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

_LOG = re.compile(r"(?P<inside>_run)|_(?P<beside>.+)\.runs")  # of a table, see `pipeline.table.log.place`
# Of archivers, and of writers of Parquet that are not done or keep books.
_NO_INPUT = frozenset({"__MACOSX", "_delta_log", "_spark_metadata", "_temporary"})
_ENDING = re.compile(r"\.[a-z0-9]{1,8}")
_KINDS = 12  # named in a line
# As jobs name files of tables, see `pipeline.table.log.records.file_name`; and that of a table of speakers.
_DATA = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}[-_].+\.parquet|speakers\.parquet")
_OF_JOBS = b"w2vbert."  # how the keys begin that jobs write into the footers of these files
HIDDEN_NAME, TABLE_FILE = "hidden name", "table file"


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name may be, or hold, input."""
    return not name.startswith(".") and name not in _NO_INPUT


def hidden_part(name: str) -> str | None:
    """The path up to the first part that is hidden, and hides what is below."""
    parts = name.split("/")
    return next(("/".join(parts[: at + 1]) for at, part in enumerate(parts) if not is_visible(part)), None)


def is_of_log(name: str) -> bool:
    """Whether a path leads through the log of a table."""
    return any(map(_LOG.fullmatch, name.split("/")[:-1]))


def tables_among(uris: Iterable[str]) -> set[str]:
    """The folders (URIs) that are tables of this program, by the logs in them and beside them."""
    found = set()
    for uri in uris:
        if uri.endswith("/table.json"):
            *above, folder, _ = uri.split("/")
            if log := _LOG.fullmatch(folder):
                found.add("/".join(above if log["inside"] else [*above, log["beside"]]))
    return found


def may_be_of_table(name: str) -> bool:
    """Whether a file has a name as those of tables have; its footer tells."""
    return _DATA.fullmatch(name.rsplit("/", 1)[-1]) is not None


def is_of_table(footer: Mapping[bytes, bytes] | None) -> bool:
    """Whether a job wrote a Parquet file, by the metadata of its footer."""
    return any(key.startswith(_OF_JOBS) for key in footer or ())


def kind_of(name: str) -> str:
    """The ending of a file's name."""
    if may_be_of_table(name):
        return TABLE_FILE
    ending = PurePosixPath(name).suffix.lower()
    if not ending:
        return "extensionless file"
    return ending if _ENDING.fullmatch(ending) else "oddly named file"


def describe(aside: Mapping[str, int]) -> str:
    """As in "12 *.txt, 3 *.pdf, 1 dangling link", the most frequent first."""
    ranked = sorted(aside.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count:,} {_kinds(kind, count)}" for kind, count in ranked]
    if rest := sum(count for _, count in ranked[_KINDS:]):
        told[_KINDS:] = [f"{rest:,} of other kinds"]
    return ", ".join(told)


def _kinds(kind: str, count: int) -> str:
    return f"*{kind}" if kind.startswith(".") else kind if count == 1 else f"{kind}s"


def left_aside(aside: Mapping[str, int]) -> str:
    """As in "15 files left aside: 12 *.txt, 3 *.pdf"; nothing where there are none."""
    count = sum(aside.values())
    return f"{count:,} file{'' if count == 1 else 's'} left aside: {describe(aside)}" if count else ""
