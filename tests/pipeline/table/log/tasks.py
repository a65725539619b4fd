"""Write tasks of one run, and what they leave."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from pipeline.table.log.writer import TableWriter
from tests.pipeline.table.outputs import SCHEMA, UNDECODABLE, A, Output


def rows(*keys: int, failed: bool = False) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "clip_id": f"a.tar#{key}",
                "shard": A.uri,
                "error": UNDECODABLE if failed else None,
                "language": "",
            }
            for key in keys
        ],
        schema=SCHEMA.remove_metadata(),
    )


def writer(table: Output, attempt: str = "0") -> TableWriter:
    return replace(table.ledger.writer("run1", SCHEMA), attempt=attempt)


def names(table: Output) -> list[str]:
    return sorted(path.name for path in table.folder.glob("*.parquet"))
