"""The input's own columns: their types in the run's table, and what happens to values that do not fit."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from pipeline.schema import OWN_NAMES
from pipeline.tasks import TASKS

_MISFIT = object()
_NUMBER_CHARACTERS = 400  # more are no number that any column holds
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")


class Cell(str):
    """What stands in a table of text: a number where its column has numbers, and else the text as it is.

    So no text is changed by being read: 007 stays an id, and 1.50 in a column of words stays 1.50.
    """

    @property
    def meant(self) -> int | float | str:
        """The number, spelled as in JSON and of finite size; else the text."""
        match = _NUMBER.fullmatch(self)
        if match is None or len(self) > _NUMBER_CHARACTERS:
            return str(self)
        if not match["fraction"]:
            return int(self)
        return value if math.isfinite(value := float(self)) else str(self)


def reserved_names(more: Iterable[str] = ()) -> frozenset[str]:
    """Every name that an output may give a column, folded, those of all registered tasks among them."""
    names = OWN_NAMES.union(more, *(task.column_names for task in TASKS.values()))
    return frozenset(folded(name) for name in names)


@dataclass(frozen=True)
class Passthrough:
    """The input's own columns in the run's table. It travels to the workers, which know fewer tasks.

    Attributes:
        schema: their types, under the output's names, of which no two differ only in case.
        reserved: names that the output uses itself, folded: an input column of such a name gets another.
    """

    schema: pa.Schema
    reserved: frozenset[str] = field(default_factory=reserved_names)

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        return {column.name: column.type for column in self.schema}

    @cached_property
    def _spellings(self) -> dict[str, str]:
        return {folded(name): name for name in self.types}

    def name(self, name: str) -> str | None:
        """The output's name of an input column, spelled as in the table; None where it has none."""
        if name in self.types:
            return name  # a table of an earlier version may have kept a Text beside its text
        return self._spellings.get(folded(output_name(name, self.reserved)))


def output_name(name: str, reserved: frozenset[str]) -> str:
    """`text` is the transcript, so the input's is `ref_text`, and its `Text` is `ref_Text`.

    SQL does not tell them apart, nor can it call a column that has no name.
    """
    return f"ref_{name}" if folded(name) in reserved or not name.strip() else name


def folded(name: str) -> str:
    """Names that SQL takes for one are equal when folded."""
    return name.lower()


def infer(samples: Iterable[Mapping[str, Any]]) -> pa.Schema:
    """The columns of JSON-like samples, under the names that they have there.

    bool, int64, double and string; lists and objects become strings that hold JSON. Integers next to
    fractions become double; any other disagreement, and a column without a single value, string.
    """
    return _schema((key, _type_of(value)) for sample in samples for key, value in sample.items())


def merge(schemas: Iterable[pa.Schema], reserved: frozenset[str]) -> pa.Schema:
    """The passthrough columns of all shards, under the output's names; where shards disagree, string.

    Names that differ only in case are one column, spelled as it is first.
    """
    return _schema(
        (output_name(column.name, reserved), column.type) for schema in schemas for column in schema
    )


def plain(type: pa.DataType) -> pa.DataType:
    """`type` without encodings: no dictionary, extension or large variant, inside lists and structs too.

    A struct of which SQL cannot tell the fields apart becomes a string that holds JSON.
    """
    if _is_ambiguous(type):
        return pa.string()
    if isinstance(type, pa.BaseExtensionType):
        return plain(type.storage_type)
    if pa.types.is_dictionary(type):
        return plain(type.value_type)
    if pa.types.is_large_string(type) or pa.types.is_string_view(type) or pa.types.is_null(type):
        return pa.string()
    if pa.types.is_large_binary(type) or pa.types.is_binary_view(type):
        return pa.binary()
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        return pa.list_(plain(type.value_type))
    if pa.types.is_struct(type):
        return pa.struct([(child.name, plain(child.type)) for child in type])
    return type


def _is_ambiguous(type: pa.DataType) -> bool:
    if isinstance(type, pa.BaseExtensionType):
        return _is_ambiguous(type.storage_type)
    if pa.types.is_dictionary(type):
        return _is_ambiguous(type.value_type)
    children = [type.field(i) for i in range(type.num_fields)]
    names = {folded(child.name) for child in children if child.name.strip()}
    unclear = pa.types.is_struct(type) and len(names) < len(children)
    return unclear or any(_is_ambiguous(child.type) for child in children)


def conform(
    values: Mapping[str, Any], passthrough: Passthrough, misfits: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], str | None]:
    """One record's values by output column, and `misfits` and those that fit no column as JSON (or None)."""
    fitting: dict[str, Any] = {}
    extra: dict[str, Any] = dict(misfits or {})
    for name, value in values.items():
        if value is None:
            continue
        output = passthrough.name(name)
        fitted = _MISFIT
        if output is not None and output not in fitting:
            fitted = _fit(value, passthrough.types[output])
        if output is None or fitted is _MISFIT:
            extra[name] = value
        else:
            fitting[output] = fitted
    return fitting, json_text(extra) if extra else None


def conform_columns(
    columns: Sequence[tuple[str, pa.Array]], rows: int, passthrough: Passthrough
) -> tuple[list[pa.Array], pa.Array]:
    """`conform` for whole columns: the passthrough arrays in the schema's order, and the `extra` array.

    Only columns whose type differs from the one wanted, and damaged ones, are walked value by value. What a
    damaged file holds in a column of text need not be text: it goes to `extra`, as base64.
    """
    fitting: dict[str, pa.Array] = {}
    extra: list[dict[str, Any]] = [{} for _ in range(rows)]
    for name, column in columns:
        output = passthrough.name(name)
        if output in fitting:
            output = None
        target = None if output is None else passthrough.types[output]
        if output is not None and plain(column.type) == target and not _is_ambiguous(column.type):
            try:
                column.validate(full=True)
                fitting[output] = column.cast(target)
                continue
            except (pa.ArrowException, ValueError):
                pass  # Arrow has no cast between some nested types; the values themselves still fit.
        fitted = []
        for row, (value, sound) in enumerate(_python_values(column)):
            fits = _fit(value, target) if target is not None and sound and value is not None else _MISFIT
            if fits is _MISFIT and value is not None:
                extra[row][name] = value
            fitted.append(None if fits is _MISFIT else fits)
        if output is not None:
            fitting[output] = pa.array(fitted, target)
    arrays = [fitting.get(column.name, pa.nulls(rows, column.type)) for column in passthrough.schema]
    return arrays, pa.array([json_text(values) if values else None for values in extra], pa.string())


def _python_values(column: pa.Array) -> Iterator[tuple[Any, bool]]:
    """Each value, and whether Python can hold it; one that it cannot comes as bytes or as text."""
    try:
        yield from [(value, True) for value in column.to_pylist()]
    except Exception:  # text that is no UTF-8, dates beyond the year 9999, indices beyond a dictionary
        for scalar in column:
            try:
                yield scalar.as_py(), True
            except Exception:
                yield _rescued(scalar), False


def _rescued(scalar: pa.Scalar) -> Any:
    """A value that Python cannot hold, as nearly as JSON can: bytes for bad text, text for the rest."""
    try:
        if not scalar.is_valid:
            return None
        if isinstance(scalar, pa.StructScalar):
            pairs = [(field.name, _rescued(scalar[i])) for i, field in enumerate(scalar.type)]
            return dict(pairs) if len(dict(pairs)) == len(pairs) else pairs
        if isinstance(scalar, pa.ListScalar):
            return [_rescued(item) for item in scalar.values]
        if isinstance(scalar, pa.DictionaryScalar | pa.ExtensionScalar):
            return _rescued(scalar.value)
        try:
            return scalar.as_py()
        except UnicodeDecodeError:
            return scalar.as_buffer().to_pybytes()
        except Exception:
            return str(scalar.cast(pa.string()))
    except Exception as problem:
        return f"({type(problem).__name__}: {problem})"


def _schema(columns: Iterable[tuple[str, pa.DataType]]) -> pa.Schema:
    types: dict[str, pa.DataType] = {}
    spellings: dict[str, str] = {}
    for name, type in columns:
        if _encodable(name) and "\0" not in name:  # else `extra` has it: Arrow's names are text of C
            spelling = spellings.setdefault(folded(name), name)
            types[spelling] = _common(types.get(spelling, pa.null()), type)
    return pa.schema(
        [(name, pa.string() if pa.types.is_null(type) else type) for name, type in types.items()]
    )


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    signed = (pa.types.is_signed_integer(one), pa.types.is_signed_integer(other))
    floating = (pa.types.is_floating(one), pa.types.is_floating(other))
    if all(signed):
        return pa.int64()
    if all(s or f for s, f in zip(signed, floating, strict=True)):
        return pa.float64()
    return pa.string()


def _type_of(value: Any) -> pa.DataType:
    if isinstance(value, Cell):
        value = value.meant
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return pa.int64()
    if isinstance(value, float):
        return pa.float64()
    return pa.string()


def _fit(value: Any, type: pa.DataType) -> Any:
    """`value` as one of `type`, or _MISFIT."""
    if pa.types.is_string(type):
        text = value if isinstance(value, str) else json_text(value)
        return text if _encodable(text) else _MISFIT
    if isinstance(value, Cell):
        value = value.meant
    if isinstance(value, bool) != pa.types.is_boolean(type):
        return _MISFIT  # Arrow would take True for 1.
    if pa.types.is_integer(type) and not isinstance(value, int):
        return _MISFIT
    try:
        if pa.types.is_floating(type):
            return float(value) if isinstance(value, int | float) else _MISFIT
        pa.scalar(value, type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return _MISFIT
    return value


def json_text(value: Any) -> str:
    try:
        standard = _standard(value)
        text = json.dumps(standard, ensure_ascii=False)
        return text if _encodable(text) else json.dumps(standard)
    except RecursionError:
        return '"(nested too deeply)"'


def _standard(value: Any) -> Any:
    """`value` in the types that JSON has."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {str(key): _standard(item) for key, item in value.items()}
        case list() | tuple():
            return [_standard(item) for item in value]
    return str(value)


def _encodable(text: str) -> bool:
    """False for half surrogate pairs, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
