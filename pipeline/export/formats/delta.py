"""Delta Lake: a log in the table's directory that refers to its Parquet files; no row is copied.

It needs no catalogue and no server, unlike Iceberg, and Spark, DuckDB, Polars and others read it by its path.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from pipeline.errors import JobError
from pipeline.export.document import Registration, register
from pipeline.export.table import Table
from pipeline.storage import Storage, StorageOptions, is_remote, name_of
from pipeline.table.reader import Footer

_NOT_IN_NAMES = frozenset(" ,;{}()\n\t=")  # Spark refuses columns of such names
_WIDER = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.int64()}


@register
class Delta(Registration):
    """What readers of Delta Lake see is what the table's log names: error rows too, no replaced ones."""

    name = "delta"

    @classmethod
    def register(cls, table: Table) -> None:
        if strange := [name for name in table.columns if not _NOT_IN_NAMES.isdisjoint(name)]:
            raise JobError(f"--table {table.given}: Delta Lake has no columns of such names: {strange}.")
        try:
            from deltalake import DeltaTable, Schema
            from deltalake.exceptions import DeltaError
            from deltalake.transaction import AddAction, create_table_with_add_actions
        except ImportError as problem:
            raise JobError(
                f"format delta needs deltalake ({problem}): pip install 'w2vbert[delta]'"
            ) from problem
        home = table.files[0].rpartition("/")[0]
        options = _access(table.storage.options) if is_remote(home) else {}
        try:
            schema = Schema.from_arrow(pa.schema([_column(field) for field in _schema(table)]))
            added: dict[str, Any] = {
                footer.uri: AddAction(**_added(footer, table.storage)) for footer in table.footers
            }
            if not DeltaTable.is_deltatable(home, options):
                create_table_with_add_actions(home, schema, list(added.values()), storage_options=options)
                return
            held = DeltaTable(home, storage_options=options)
            held.repair()  # forgets the files that are gone
            known = {name_of(uri) for uri in held.file_uris()}
            new: list[Any] = [action for uri, action in added.items() if name_of(uri) not in known]
            if new:
                held.create_write_transaction(new, "append", schema)
        except (DeltaError, ValueError, OSError) as problem:
            told = table.storage.options.redact(str(problem))
            raise JobError(f"--table {table.given}: it cannot be a table of Delta Lake: {told}") from problem


def _schema(table: Table) -> pa.Schema:
    return pa.unify_schemas([footer.schema.remove_metadata() for footer in table.footers])


def _column(field: pa.Field) -> pa.Field:
    return pa.field(field.name, _plain(field.type))


def _plain(kind: pa.DataType) -> pa.DataType:
    """Delta Lake has no unsigned numbers and no lists of a fixed size."""
    if pa.types.is_struct(kind):
        return pa.struct([_column(field) for field in kind])
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return _WIDER.get(kind, kind)


def _added(footer: Footer, storage: Storage) -> dict[str, Any]:
    """A file as the log of Delta names it; its path is relative to the table."""
    info = storage.info(footer.uri)
    return {
        "path": name_of(footer.uri),
        "size": info.size,
        "partition_values": {},
        "modification_time": round(1000 * (info.modified or 0)),
        "data_change": True,
        "stats": json.dumps({"numRecords": footer.rows}),
    }


def _access(options: StorageOptions) -> dict[str, str]:
    """Access to S3 under the names of the environment; what is unset comes from there."""
    secrets = {
        "AWS_ACCESS_KEY_ID": options.key,
        "AWS_SECRET_ACCESS_KEY": options.secret,
        "AWS_SESSION_TOKEN": options.token,
    }
    given = {name: secret.get_secret_value() for name, secret in secrets.items() if secret is not None}
    if options.region is not None:
        given["AWS_REGION"] = options.region
    if options.endpoint_url is not None:
        given["AWS_ENDPOINT_URL"] = options.endpoint_url
        given["AWS_ALLOW_HTTP"] = "true"
    return given
