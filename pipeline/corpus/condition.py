"""`--where`: which clips a run annotates, as a condition in DuckDB's SQL over the input's own columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError, Stage

_IDENTITY = ("clip_id", "shard")
# A condition may come from others: it reaches no file, no extension and no setting, and is no end of memory.
_LOCKED: dict[str, Any] = {
    "threads": 1,
    "enable_external_access": False,
    "python_enable_replacements": False,
    "autoload_known_extensions": False,
    "memory_limit": "1GB",
    "temp_directory": "",
    "lock_configuration": True,
}


class Where:
    """A condition over `clip_id`, `shard` and the passthrough columns under their output names.

    A value that it cannot be computed for (a cast that fails) makes it NULL, as a missing value does.

    Raises:
        JobError: it does not parse, names a column that is not there, or is neither true nor false.
    """

    def __init__(self, expression: str, passthrough: pa.Schema) -> None:
        import duckdb  # takes most of a second, and most jobs have no condition

        self._connection = duckdb.connect(config=_LOCKED)
        # TRY admits only what one row decides: no aggregate, window, subquery or random number.
        self._expression = f"TRY((\n{expression}\n))"
        clips = pa.schema([(name, pa.string()) for name in _IDENTITY]).empty_table()
        for column in passthrough:
            if self._can_read(column):
                clips = clips.append_column(column, pa.array([], column.type))
        self.columns: list[str] = clips.column_names
        try:
            duckdb.SQLExpression(expression)  # by itself, so that no bracket of it closes one of ours
            kind = self._evaluate(clips).type
        except duckdb.Error as problem:
            raise JobError(f"--where {expression}: {problem}\n{self._available()}") from problem
        if not pa.types.is_boolean(kind):
            raise JobError(f"--where {expression}: must be true or false, is {kind}\n{self._available()}")

    def keep(self, clips: pa.Table) -> pa.ChunkedArray:
        """Which rows pass, never null: those it is true for.

        Where reading failed and left the columns empty nobody can tell, so the row passes too.
        """
        passes = self._evaluate(clips.select(self.columns))
        stage = pc.struct_field(clips["error"], "stage")
        unknown = pc.and_(passes.is_null(), pc.fill_null(pc.equal(stage, Stage.READ.value), False))
        return pc.or_(pc.fill_null(passes, False), unknown)

    def filter(self, clips: pa.Table) -> pa.Table:
        return clips.filter(self.keep(clips))

    def _evaluate(self, clips: pa.Table) -> pa.ChunkedArray:
        import duckdb

        passes = duckdb.SQLExpression(self._expression).alias("passes")
        found = self._connection.from_arrow(clips).project(passes).to_arrow_table()
        if found.num_columns != 1:
            raise duckdb.BinderException("these are several conditions: join them with AND or OR")
        return found.column(0)

    def _can_read(self, column: pa.Field) -> bool:
        """DuckDB lacks a few of Arrow's types, such as half floats."""
        import duckdb

        try:
            self._connection.from_arrow(pa.schema([column]).empty_table())
        except duckdb.NotImplementedException:
            return False
        return True

    def _available(self) -> str:
        return f"Available columns: {', '.join(self.columns)}."
