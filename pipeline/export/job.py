"""An export from its spec to its summary: rows of the table in, one file or one a clip out."""

from __future__ import annotations

import contextlib
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pipeline.errors import JobError
from pipeline.export.document import Document, Registration
from pipeline.export.formats import FORMATS
from pipeline.export.names import UniqueNames, file_names
from pipeline.export.spec import ExportSpec
from pipeline.export.table import Row, Table, open_table
from pipeline.storage import Storage, join, place_errors
from pipeline.table.log.place import require_outside_tables

_FILES_AT_ONCE = 32  # an object store takes as long for one as for many


@dataclass
class Exported:
    """What an export did."""

    output: str
    per_clip: bool
    clips: int = 0
    failed: int = 0  # of the written ones, in formats that have error rows
    left_out: Counter[str] = field(default_factory=Counter)


def export(spec: ExportSpec) -> Exported:
    """Writes what the spec asks for.

    Raises:
        JobError: bad configuration before anything is written, or storage that fails.
    """
    storage = Storage(spec.storage.with_environment())
    kind = FORMATS[spec.format]
    output = storage.normalise(spec.output)
    table = open_table(spec.table, storage)
    if issubclass(kind, Registration):
        return _register(kind, table, spec, output)
    assert issubclass(kind, Document)
    per_clip = kind.one_per_clip if spec.per_clip is None else spec.per_clip
    columns = kind.columns(table, spec.content)
    done = Exported(output, per_clip)
    with place_errors("--output", spec.output):
        _require_free(spec, output, table, per_clip=per_clip)
        if per_clip:
            # Once without writing: nothing is written where some of it could not be.
            rows = _writable(table.rows(columns), kind, Exported(output, per_clip))
            _require_free_names((name for name, _ in _named(rows, kind)), spec, output, storage)
        rows = _writable(table.rows(columns), kind, done)
        if per_clip:
            _write_each(rows, kind, output, storage)
        else:
            _write_one(rows, kind, spec.output, output, storage)
    return done


def _register(kind: type[Registration], table: Table, spec: ExportSpec, output: str) -> Exported:
    if {file.rpartition("/")[0] for file in table.files} != {output.rstrip("/")}:
        raise JobError(
            f"--output {spec.output}: {kind.name} refers to files where they are, from beside them; give the "
            f"table's own directory, as in --output {spec.table}."
        )
    kind.register(table)
    return Exported(output, per_clip=False, clips=table.count)


def format_summary(done: Exported) -> str:
    """The summary as a person reads it."""
    clips = f"{done.clips} written" + (f" ({done.failed} of them with an error)" if done.failed else "")
    if done.left_out:
        reasons = ", ".join(f"{reason} {count}" for reason, count in done.left_out.most_common())
        clips += f", {done.left_out.total()} left out ({reasons})"
    return f"clips       {clips}\noutput      {done.output}" + (", a file per clip" if done.per_clip else "")


def _writable(rows: Iterable[Row], kind: type[Document], done: Exported) -> Iterator[Row]:
    """The rows that the format has a place for, counted."""
    for row in rows:
        error = row.get("error")
        if not row["clip_id"]:
            done.left_out["without clip_id"] += 1
        elif error is not None and not kind.error_rows:
            done.left_out[error["code"]] += 1
        elif (reason := kind.missing(row)) is not None:
            done.left_out[reason] += 1
        else:
            done.clips += 1
            done.failed += error is not None
            yield row


def _require_free(spec: ExportSpec, output: str, table: Table, *, per_clip: bool) -> None:
    """Refuses an output that would be written into a table, or over what is not of its kind."""
    storage = table.storage
    own = set(table.files) | {file.rsplit("/", 1)[0] for file in table.files}
    if output.rstrip("/") in own:
        raise JobError(f"--output {spec.output} is the table itself; choose another place.")
    require_outside_tables(f"--output {spec.output}", output, storage, storage.normalise(spec.table))
    if per_clip and storage.is_file(output):
        raise JobError(f"--output {spec.output} is a file, and a directory is needed for one file per clip.")
    if not per_clip and (spec.output.endswith("/") or storage.is_dir(output)):
        raise JobError(
            f"--output {spec.output} is a directory: name a file in it, or give --per-clip for one a clip."
        )
    if not per_clip and not storage.is_replaceable(output):
        raise JobError(f"--output {spec.output} is no ordinary file that could be replaced as a whole.")
    if not per_clip and not spec.overwrite and storage.exists(output):
        raise JobError(f"--output {spec.output} is there already; name another file, or --overwrite it.")


def _require_free_names(names: Iterable[str], spec: ExportSpec, output: str, storage: Storage) -> None:
    """Refuses names of files that are there already, or whose folders are files."""
    held = {uri[len(output.rstrip("/")) + 1 :] for uri in storage.list_files(output, recursive=True)}
    folders = {folder for name in held for folder in _folders(name)}
    for name in names:
        if name in held and not spec.overwrite:
            raise JobError(
                f"--output {spec.output} holds {name} already; choose another directory, "
                "or --overwrite its files."
            )
        if name in folders or not held.isdisjoint(_folders(name)):
            raise JobError(
                f"--output {spec.output}: {name} cannot be written, where a file has the name of a directory "
                "or a directory that of a file; choose another directory."
            )


def _folders(name: str) -> list[str]:
    """`a/b/c.srt` is in `a` and `a/b`."""
    return [name[:at] for at, char in enumerate(name) if char == "/"]


def _write_one(rows: Iterator[Row], kind: type[Document], given: str, output: str, storage: Storage) -> None:
    first = next(rows, None)
    if first is None and kind.needs_a_clip:
        raise JobError(
            f"nothing to write to --output {given}: no clip can be written, and a {kind.extension} needs one."
        )
    with storage.writing(output) as handle, _packing(handle, output) as file:
        document = kind(lambda text: file.write(text.encode()), whole_table=True)
        if first is not None:
            document.add(first)
        for row in rows:
            document.add(row)
        document.finish()


def _named(rows: Iterable[Row], kind: type[Document]) -> Iterator[tuple[str, Row]]:
    """Each clip with the relative path of its file."""
    with contextlib.closing(UniqueNames(kind.extension)) as names:
        for row in rows:
            yield names.take(file_names(row["clip_id"], kind.extension)), row


def _write_each(rows: Iterator[Row], kind: type[Document], output: str, storage: Storage) -> None:
    def write(file: tuple[str, bytes]) -> None:
        name, data = file
        storage.write_bytes(join(output, name), gzip.compress(data, mtime=0) if _is_packed(name) else data)

    with ThreadPoolExecutor(_FILES_AT_ONCE) as threads:
        files = ((name, _alone(row, kind)) for name, row in _named(rows, kind))
        while batch := list(islice(files, _FILES_AT_ONCE)):
            list(threads.map(write, batch))


def _is_packed(name: str) -> bool:
    return name.lower().endswith(".gz")


def _packing(handle: Any, name: str) -> contextlib.AbstractContextManager[Any]:
    """What writes into a file: gzip, where the file's name says so."""
    if _is_packed(name):
        return gzip.GzipFile("", "wb", fileobj=handle, mtime=0)
    return contextlib.nullcontext(handle)


def _alone(row: Row, kind: type[Document]) -> bytes:
    pieces: list[str] = []
    document = kind(pieces.append, whole_table=False)
    document.add(row)
    document.finish()
    return "".join(pieces).encode()
