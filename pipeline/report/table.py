"""The table in DuckDB, which reads of each Parquet file only the columns that a question asks for."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from typing import TYPE_CHECKING, Any

from pipeline import strict_json
from pipeline.errors import JobError
from pipeline.export.table import check_columns, in_words
from pipeline.schema import CLIP_COLUMNS, COST_COLUMNS, EXTRA
from pipeline.speakers.job import SPEAKER_COLUMNS
from pipeline.storage import Storage, StorageError, is_remote, join, path_of
from pipeline.storage.filesystems import filesystem_of
from pipeline.table.log.place import log_home
from pipeline.table.reader import Footer, read_footer, table_files
from pipeline.tasks import TASKS

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
_SETTINGS: dict[str, Any] = {"memory_limit": "1GB", "autoinstall_known_extensions": False}
_SCALAR = re.compile(r"VARCHAR|BOOLEAN|U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?")


@dataclass(frozen=True)
class Report:
    """What a table's page is made of.

    Attributes:
        name: of the table, as it was given.
        database: has the view `clips`, a row for each clip.
        columns: their types, as DuckDB calls them.
        footers: of the table's files.
        seed: chooses samples.
        has_speakers: there is a view `speakers` too, of what `jobs/speakers.py` found.
        storage: that the table lies in.
    """

    name: str
    database: duckdb.DuckDBPyConnection
    columns: Mapping[str, str]
    footers: Sequence[Footer]
    seed: int
    storage: Storage
    has_speakers: bool = False

    def has(self, *names: str) -> bool:
        return all(name in self.columns for name in names)

    def rows(self, query: str, *values: Any) -> list[Row]:
        """The answer to a question about `clips`."""
        answer = self.database.execute(query, values or None)
        names = [column[0] for column in answer.description or ()]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    def row(self, query: str, *values: Any) -> Row:
        """The answer to a question that has one line of answer."""
        (row,) = self.rows(query, *values)
        return row

    @property
    def drawn(self) -> str:
        """What clips are ordered by to draw some at random, whatever the order of the files is."""
        return f"md5(clip_id || '{self.seed}'), clip_id"

    @cached_property
    def groups(self) -> list[str]:
        """The input's own columns that clips could be grouped by."""
        own = {
            *CLIP_COLUMNS,
            *COST_COLUMNS,
            EXTRA,
            *(name for t in TASKS.values() for name in t.column_names),
        }
        return [name for name, kind in self.columns.items() if name not in own and _SCALAR.fullmatch(kind)]

    @cached_property
    def models(self) -> dict[str, Row]:
        """What made each annotation: the name and digests of its checkpoint."""
        models: dict[str, Row] = {}
        for fact in self._facts("models"):
            models |= fact
        return models

    @cached_property
    def spec(self) -> Row:
        """The settings of the latest run."""
        return next(iter(reversed(self._facts("spec"))), {})

    @cached_property
    def versions(self) -> dict[str, str]:
        return next(iter(reversed(self._facts("versions"))), {})

    @cached_property
    def runs(self) -> list[Row]:
        """The summaries of the runs that wrote the table, as far as its log is there."""
        ids = dict.fromkeys(_metadata(footer, "run_id") for footer in self.footers)
        folder = self.footers[0].uri.rpartition("/")[0]
        home = log_home(folder, self.storage)
        found = []
        for run_id in filter(None, ids):
            data = self.storage.read_bytes_or_none(join(home, f"{run_id}.json"))
            found.append({**_object(data or b"{}"), "run_id": run_id})
        return found

    def _facts(self, name: str) -> list[Row]:
        """JSON of the files' metadata, each once, in the order of the files."""
        texts = dict.fromkeys(_metadata(footer, name) for footer in self.footers)
        return [fact for text in texts if text and (fact := _object(text))]


def name_of_column(name: str) -> str:
    """A column in SQL, whatever its name is."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def opened(given: str, storage: Storage, seed: int, speakers: str | None = None) -> Iterator[Report]:
    """The table that a job wrote, with the table of its speakers beside it.

    Raises:
        JobError: there is none, it is none, or it cannot be read to its end.
    """
    import duckdb

    footers = _footers(given, storage)
    found = [] if speakers is None else _speakers(speakers, storage)
    with ExitStack() as stack:
        spill = stack.enter_context(tempfile.TemporaryDirectory(prefix="w2vbert-report-"))
        database = duckdb.connect(config=_SETTINGS | {"temp_directory": spill})
        stack.callback(database.close)
        try:
            attach(database, "clips", [footer.uri for footer in footers], storage)
            if found:
                attach(database, "speakers", found, storage)
            described = database.execute("DESCRIBE clips").fetchall()
            columns = {name: kind for name, kind, *_ in described}
            yield Report(given, database, columns, footers, seed, storage, bool(found))
        except duckdb.ProgrammingError:  # a question that is wrong, not its answer
            raise
        except duckdb.Error as problem:
            told = storage.options.redact(str(problem)).strip()
            raise JobError(f"--table {given}: DuckDB cannot read it: {told}") from problem


def attach(database: duckdb.DuckDBPyConnection, view: str, files: Sequence[str], storage: Storage) -> None:
    """Parquet files as a view."""
    remote = is_remote(files[0])
    if remote:
        filesystem = filesystem_of(files[0], storage.options.s3_arguments(), storage.hosts)
        if not database.filesystem_is_registered(_protocol(filesystem)):
            database.register_filesystem(filesystem)
    places = [escape(file if remote else path_of(file)) for file in files]
    listed = ", ".join("'" + place.replace("'", "''") + "'" for place in places)
    database.execute(
        f"CREATE VIEW {view} AS "
        f"SELECT * FROM read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
    )


def _protocol(filesystem: Any) -> str:
    protocol = filesystem.protocol
    return protocol if isinstance(protocol, str) else str(protocol[0])


def _footers(given: str, storage: Storage) -> list[Footer]:
    try:
        footers = [read_footer(file, storage) for file in table_files(storage.normalise(given), storage)]
    except StorageError as problem:
        raise JobError(f"--table {in_words(problem)}.") from problem
    if not footers:
        raise JobError(f"--table {given}: no Parquet file there; give the output of a job.")
    for footer in footers:
        check_columns(footer.schema, footer.uri)
        lacking = [name for name in ("shard", "duration_s", "error") if name not in footer.schema.names]
        if lacking:
            raise JobError(
                f"--table {footer.uri} lacks the columns {', '.join(lacking)}, which every table of a job "
                "has (docs/table.md): it was written by another program, or by another version of this one."
            )
    if not any(footer.rows for footer in footers):
        raise JobError(f"--table {given}: the table has no rows, there is nothing to report.")
    return footers


def _object(text: str | bytes) -> Row:
    """A JSON object; an empty one where it is damaged: the clips are as they are."""
    try:
        return strict_json.loads(text, dict[str, Any])
    except ValueError:
        return {}


def _speakers(given: str, storage: Storage) -> list[str]:
    """The files of a table of speakers."""
    try:
        files = table_files(storage.normalise(given), storage)
        schemas = [read_footer(file, storage).schema for file in files]
    except StorageError as problem:
        raise JobError(f"--speakers {in_words(problem)}.") from problem
    if not files or any(not set(SPEAKER_COLUMNS) <= set(schema.names) for schema in schemas):
        raise JobError(
            f"--speakers {given} is no table of speakers, with the columns {', '.join(SPEAKER_COLUMNS)}: "
            "give the --output of jobs/speakers.py."
        )
    return files


def _metadata(footer: Footer, name: str) -> str | None:
    value = (footer.schema.metadata or {}).get(f"w2vbert.{name}".encode())
    return None if value is None else value.decode(errors="replace")
