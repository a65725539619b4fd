"""The options of a job, as a user gives and sees them: the fields of its spec, those of its parts flat."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.spec.flat import FlatSpec

ENVIRONMENT_PREFIX = "W2VBERT_"
Path = tuple[str, ...]
# Groups of the help, in order; those of tasks that are not named here come where the dots are.
_GROUPS = (
    *("", "input", "output", "model", "decoding", "diarization", "optimisation", "augmentation"),
    *("masked prediction", "…", "running", "cluster", "storage", "messages"),
)
_POSITIONAL = ("input", "train", "table")  # whichever a spec has: given without its flag, too
_PLACES = {"output", "model", "report", "features", *_POSITIONAL}
_CLAUSE_END = re.compile(r"; |: | \(")


@dataclass(frozen=True)
class Option:
    """A field of a spec as the user gives it.

    Attributes:
        path: its name, in a nested declaration after that of the field which holds it.
        group: of the help.
        first: stands before the others of the group.
    """

    path: Path
    field: FieldInfo
    group: str
    first: bool

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def flag(self) -> str:
        return flag_of(self.path)

    @property
    def variable(self) -> str:
        """Of the environment."""
        return ENVIRONMENT_PREFIX + "_".join(self.path).upper()

    @property
    def rank(self) -> tuple[int, int]:
        """Where it stands in the help."""
        return _GROUPS.index(self.group if self.group in _GROUPS else "…"), 0 if self.first else 1

    @property
    def positional(self) -> bool:
        return len(self.path) == 1 and self.path[0] in _POSITIONAL

    @property
    def is_place(self) -> bool:
        """Whether it names a file or a folder."""
        return self.name in _PLACES

    @property
    def is_secret(self) -> bool:
        """Process lists and job logs show flags: secrets come from the environment or the file."""
        return SecretStr in self._alternatives

    @property
    def is_flag(self) -> bool:
        return bool in self._alternatives

    @property
    def is_list(self) -> bool:
        return typing.get_origin(self._alternatives[0]) is list

    @property
    def choices(self) -> tuple[str, ...]:
        if registered := self._extra("choices"):
            return tuple(registered)
        kind = self._alternatives[0]
        return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()

    @property
    def help(self) -> str:
        return str(self._extra("help") or self.field.description)

    @property
    def summary(self) -> str:
        """The first clause of the help."""
        return _CLAUSE_END.split(self.help)[0]

    @property
    def kind(self) -> str:
        kind = self._alternatives[0]
        if self.is_list:
            return f"{_kind_name(typing.get_args(kind)[0])}, repeatable"
        return "choice" if self.choices else _kind_name(kind)

    @property
    def metavar(self) -> str:
        return "{" + ",".join(self.choices) + "}" if self.choices else self.kind.partition(",")[0].upper()

    @property
    def default(self) -> Any:
        """None: unset, or required."""
        value = self.field.get_default(call_default_factory=True)
        return None if value is PydanticUndefined else value

    @property
    def default_text(self) -> str:
        if self.field.is_required():
            return "required"
        value = self.default
        if value is None or value in ([], {}, ""):
            return "default: unset"
        if isinstance(value, list):
            value = ",".join(map(str, value))
        return f"default: {str(value).lower() if isinstance(value, bool) else value}"

    @property
    def _alternatives(self) -> tuple[Any, ...]:
        annotation = self.field.annotation
        if typing.get_origin(annotation) in (types.UnionType, typing.Union):
            return tuple(kind for kind in typing.get_args(annotation) if kind is not type(None))
        return (annotation,)

    def _extra(self, name: str) -> Any:
        """What `json_schema_extra` says, now: functions in it are asked, since registries grow."""
        extra = self.field.json_schema_extra
        value: Any = extra.get(name) if isinstance(extra, dict) else None
        return value() if callable(value) else value


def parts_of(declaration: type[BaseModel]) -> Mapping[str, type[BaseModel]]:
    """The fields of a run's spec whose own fields stand flat."""
    return declaration.parts() if issubclass(declaration, FlatSpec) else {}


def options_of(declaration: type[BaseModel], prefix: Path = (), group: str = "") -> Iterator[Option]:
    parts = parts_of(declaration)
    group = group or str(declaration.model_config.get("title") or "")
    for name, field in declaration.model_fields.items():
        kind = field.annotation
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if name in parts:
            yield from options_of(parts[name], prefix, parts[name].model_config.get("title") or group)
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from options_of(kind, (*prefix, name), name)
        else:
            first = field.is_required() or bool(extra.get("first"))
            yield Option((*prefix, field.alias or name), field, str(extra.get("group", group)), first)


def flag_of(path: Path) -> str:
    return "--" + "-".join(path).replace("_", "-")


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message about a name that is none."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _kind_name(kind: type) -> str:
    names = {"str": "text", "bool": "flag", "datetime": "time", "Literal": "name", "dict": "pairs"}
    return names.get(kind.__name__, kind.__name__)
