"""The footer of a Parquet file, mended where it contradicts itself.

It is a Thrift struct (compact protocol) that tells a number of rows for the file, for each row group, and for
each column of a row group: a column that does not repeat has one value a row. What most of them say is true.

Arrow believes the first number it meets; and asked for what a damaged footer says of a column, it does not
raise but ends the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.corpus.readers.base import ShardFile

_MAGIC = b"PAR1"
_ARROW_SCHEMA = b"ARROW:schema"
# Fields of FileMetaData, RowGroup, ColumnChunk, ColumnMetaData and SchemaElement in parquet.thrift.
_SCHEMA, _FILE_ROWS, _ROW_GROUPS = 2, 3, 4
_COLUMNS, _GROUP_ROWS = 1, 3
_META_DATA, _NUM_VALUES = 3, 5
_REPETITION, _NUM_CHILDREN, _REPEATED = 3, 5, 2
_Struct = dict[int, Any]


def read_footer(handle: ShardFile) -> bytes:
    size = handle.size()
    handle.seek(max(0, size - 8))
    length = int.from_bytes(handle.read(4), "little")
    handle.seek(max(0, size - 8 - length))
    return handle.read(min(length, size))


def metadata_of(footer: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(_MAGIC + footer + len(footer).to_bytes(4, "little") + _MAGIC))


def without_arrow_schema(footer: bytes) -> bytes:
    """Without the types of the file's writer: Arrow looks for them by a name and has no option not to."""
    return footer.replace(_ARROW_SCHEMA, _ARROW_SCHEMA.lower())


def contradicts_itself(metadata: pq.FileMetaData) -> bool:
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return sum(counts) != metadata.num_rows or min(counts, default=0) < 0


def with_true_counts(footer: bytes) -> bytes:
    """With the number of rows that most of the footer tells; raises where it is no Thrift struct."""
    metadata = _Thrift(footer).struct()
    groups = metadata.get(_ROW_GROUPS, [])
    flat = [not repeated for repeated in _repeated_leaves(metadata[_SCHEMA])]
    told = [group[_GROUP_ROWS].value for group in groups]
    counts = []
    for group, rows in zip(groups, told, strict=True):
        votes = Counter([rows, metadata[_FILE_ROWS].value - (sum(told) - rows)])
        for column, is_flat in zip(group[_COLUMNS], flat, strict=True):
            if is_flat:
                votes[column[_META_DATA][_NUM_VALUES].value] += 1
        counts.append(max((n for n in votes if n >= 0), key=lambda n: (votes[n], -n), default=0))
    numbers = [*(group[_GROUP_ROWS] for group in groups), metadata[_FILE_ROWS]]
    edits = sorted(zip(numbers, [*counts, sum(counts)], strict=True), key=lambda edit: edit[0].start)
    mended, done = b"", 0
    for number, true in edits:
        mended += footer[done : number.start] + _varint(true << 1)
        done = number.stop
    return mended + footer[done:]


def _repeated_leaves(schema: list[_Struct]) -> list[bool]:
    """Of each column, whether it may have other than one value a row; `schema` is the tree in preorder."""
    elements: Iterator[_Struct] = iter(schema)

    def below(children: int, repeated: bool) -> Iterable[bool]:
        for element in (next(elements) for _ in range(children)):
            repeats = repeated or _number(element, _REPETITION) == _REPEATED
            if inner := _number(element, _NUM_CHILDREN):
                yield from below(inner, repeats)
            else:
                yield repeats

    return list(below(_number(next(elements), _NUM_CHILDREN), False))


def _number(struct: _Struct, field: int) -> int:
    return struct[field].value if field in struct else 0


class _Number(NamedTuple):
    value: int
    start: int
    stop: int


class _Thrift:
    """Values of the compact protocol, from the first byte on. IndexError where they do not end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self) -> _Struct:
        fields: _Struct = {}
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._zigzag().value
            # A boolean field has its value in the place of its type.
            fields[field] = head == 1 if head & 15 in (1, 2) else self._value(head & 15)
        return fields

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._number())
            case 9 | 10:
                head = self._byte()
                size = self._number() if head >> 4 == 15 else head >> 4
                return [self._value(head & 15) for _ in range(size)]
            case 12:
                return self.struct()
        raise ValueError(f"no type of Thrift that Parquet uses: {kind}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise IndexError("the footer ends inside a value")
        return self._data[self._at - size : self._at]

    def _number(self) -> int:
        value = shift = 0
        while (byte := self._byte()) >= 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def _zigzag(self) -> _Number:
        start = self._at
        value = self._number()
        return _Number(value >> 1 ^ -(value & 1), start, self._at)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
