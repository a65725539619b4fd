"""A job's settings as files: the merged ones as YAML, and a JSON Schema that editors check such a file by."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, TypeAdapter

from jobs.cli.options import Option, Path
from pipeline.storage import redact

_NUMBER_AS_TEXT = ["string", "number"]  # `num_actors: 4` needs no quotes


def settings_as_yaml(
    options: Sequence[Option], values: Mapping[Path, Any], origins: Mapping[Path, str]
) -> str:
    """All settings as `--config` takes them, each with where it was given; secrets are not shown."""
    lines: list[str] = []
    for top, together in groupby(options, key=lambda option: option.path[0]):
        for number, option in enumerate(together):
            nested = len(option.path) > 1
            if nested and not number:
                lines.append(f"{top}:")
            origin = origins.get(option.path, "default")
            indent = "  " if nested else ""
            if option.is_secret:
                if option.path in values:
                    lines.append(f"{indent}# {option.path[-1]}: not shown  # {origin}")
                continue
            value = values.get(option.path, option.default)
            lines.append(f"{indent}{option.path[-1]}: {_as_text(value)}  # {origin}")
    return "\n".join(lines)


def _as_text(value: Any) -> str:
    """On one line."""
    if isinstance(value, str):
        value = redact(value)
    if isinstance(value, list):
        value = [redact(item) if isinstance(item, str) else item for item in value]
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 30, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def json_schema(declaration: type[BaseModel], options: Iterable[Option]) -> str:
    """Of the YAML file of a job."""
    properties: dict[str, Any] = {}
    for option in options:
        place = properties
        if len(option.path) > 1:
            nested = {"type": "object", "additionalProperties": False, "properties": {}}
            place = properties.setdefault(option.path[0], nested)["properties"]
        place[option.path[-1]] = _property(option)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": declaration.__name__,
        "description": (declaration.__doc__ or "").strip(),
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False)


def _property(option: Option) -> dict[str, Any]:
    """What the field's type says, and text where a flag would take it."""
    annotation: Any = option.field.annotation
    if option.field.metadata:
        annotation = Annotated[annotation, *option.field.metadata]
    found = TypeAdapter(annotation).json_schema()
    kinds = [dict(kind) for kind in found.pop("anyOf", [found])]
    for kind in kinds:
        if kind.get("type") == "string":
            kind["type"] = _NUMBER_AS_TEXT
            kind.pop("format", None)  # `since: 36h` is a time, too
            kind.pop("writeOnly", None)
    if option.choices:
        kinds = [{"enum": list(option.choices)}, *(kind for kind in kinds if kind.get("type") == "null")]
    if option.is_list or option.kind == "pairs":
        kinds.append({"type": _NUMBER_AS_TEXT})
    shape = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    described = {**shape, "description": option.help}
    if not option.field.is_required() and not option.is_secret:
        described["default"] = option.default
    return described
