"""JSON that every parser reads: what only Python would write (NaN, Infinity, half characters) is replaced.

What is read back is of the type that was written, or damaged.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

Kind = TypeVar("Kind")
_SURROGATE = re.compile("[\ud800-\udfff]")


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Numbers that are not finite become null; bytes of a name that are no UTF-8, U+FFFD."""
    text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub("\ufffd", text)


def loads(text: str | bytes, kind: type[Kind]) -> Kind:
    """Raises ValueError for what is no JSON, or JSON of another type."""
    try:
        return as_kind(json.loads(text), kind)
    except RecursionError as problem:
        raise ValueError("nested too deeply") from problem


def as_kind(value: Any, kind: type[Kind]) -> Kind:
    """What JSON held as an object of this type; raises ValueError for what is none."""
    found: Kind = _adapter(kind).validate_python(value)  # type: ignore[arg-type]
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value
