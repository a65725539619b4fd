"""Flags, YAML file and environment of a job, from the one pydantic declaration of its spec."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import types
import typing
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.errors import JobError
from pipeline.spec.flat import FlatSpec
from pipeline.storage import without_credentials

ENVIRONMENT_PREFIX = "W2VBERT_"
Spec = TypeVar("Spec", bound=BaseModel)
_Path = tuple[str, ...]
# Groups of the help, in order; those of tasks that are not named here come where the dots are.
_GROUPS = (
    *("", "input", "output", "model", "decoding", "diarization", "optimisation", "augmentation"),
    *("masked prediction", "…", "running", "cluster", "storage"),
)


@dataclass(frozen=True)
class _Option:
    """A field of a spec as the user gives it.

    Attributes:
        path: its name, in a nested declaration after that of the field which holds it.
        group: of the help.
        first: stands before the others of the group.
    """

    path: _Path
    field: FieldInfo
    group: str
    first: bool

    @property
    def flag(self) -> str:
        return _flag(self.path)

    @property
    def rank(self) -> tuple[int, int]:
        """Where it stands in the help."""
        return _GROUPS.index(self.group if self.group in _GROUPS else "…"), 0 if self.first else 1


def read_spec(
    declaration: type[Spec],
    arguments: Sequence[str] | None,
    *,
    program: str,
    environment: Mapping[str, str] = os.environ,
) -> Spec:
    """Flags win over the YAML file (`--config`), the file over the environment (`W2VBERT_OUTPUT=…`).

    Args:
        arguments: None: this process's.

    Raises:
        JobError: an unknown field (with the nearest name), a value that does not fit, an unreadable file.
        SystemExit: `--help`, or flags that argparse refuses.
    """
    parser = _parser(declaration, program)
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        parser.print_help()
        raise SystemExit(2)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = [option.flag for option in _options(declaration)]
        # Without its value: it may be meant for a secret, which no flag takes.
        name = without_credentials(unknown[0]).split("=")[0]
        parser.error(f"unknown argument {name}" + _nearest(name, flags))
    flags_given = vars(known)
    config_file = flags_given.pop("config", None)

    values: dict[str, Any] = {}
    for option in _options(declaration):
        name = ENVIRONMENT_PREFIX + "_".join(option.path).upper()
        if name in environment:
            text = environment[name]
            _set(values, option.path, text.split() if _is_list(option.field) else text)
    if config_file is not None:
        _merge(values, _read_yaml(config_file, declaration))
    for option in _options(declaration):
        if (value := flags_given.get(".".join(option.path))) is not None:
            _set(values, option.path, value)
    try:
        return declaration.model_validate(values)
    except ValidationError as problem:
        raise JobError(_explain(problem, _parts(declaration), program)) from None


def _parts(declaration: type[BaseModel]) -> Mapping[str, type[BaseModel]]:
    """The fields of a run's spec whose own fields stand flat."""
    return declaration.parts() if issubclass(declaration, FlatSpec) else {}


def _options(declaration: type[BaseModel], prefix: _Path = (), group: str = "") -> Iterator[_Option]:
    for name, field in declaration.model_fields.items():
        kind = field.annotation
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if name in _parts(declaration):
            part = _parts(declaration)[name]
            yield from _options(part, prefix, part.model_config.get("title") or group)
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _options(kind, (*prefix, name), name)
        else:
            first = field.is_required() or bool(extra.get("first"))
            yield _Option((*prefix, field.alias or name), field, str(extra.get("group", group)), first)


def _parser(declaration: type[BaseModel], program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python {program}",
        description=(declaration.__doc__ or "").strip(),
        epilog="Every field may also stand in the YAML file, or in the environment as "
        f"{ENVIRONMENT_PREFIX}<FIELD> (a list's words separated by spaces). "
        "Flags win over the file, the file over the environment.",
        argument_default=None,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the fields below")
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    for option in sorted(_options(declaration), key=lambda option: option.rank):
        if SecretStr in _alternatives(option.field):
            continue  # process lists and job logs show flags; secrets come from the environment or the file
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        groups[option.group].add_argument(option.flag, **_arguments(option))
    return parser


def _arguments(option: _Option) -> dict[str, Any]:
    """A flag as argparse takes it."""
    field = option.field
    kind, default = _describe(field)
    options: dict[str, Any] = {"dest": ".".join(option.path), "help": f"{_help(field)} ({kind}; {default})"}
    if bool in _alternatives(field):
        options["action"] = argparse.BooleanOptionalAction
    elif _is_list(field):
        options |= {"action": "append", "metavar": kind.partition(",")[0].upper()}
    elif choices := _choices(field):
        options["choices"] = choices
    else:
        options["metavar"] = kind.upper()
    options["help"] = options["help"].replace("%", "%%")
    return options


def _alternatives(field: FieldInfo) -> tuple[Any, ...]:
    annotation = field.annotation
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return tuple(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return (annotation,)


def _is_list(field: FieldInfo) -> bool:
    return typing.get_origin(_alternatives(field)[0]) is list


def _choices(field: FieldInfo) -> tuple[Any, ...]:
    if registered := _extra(field, "choices"):
        return tuple(registered)
    kind = _alternatives(field)[0]
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


def _help(field: FieldInfo) -> str:
    return str(_extra(field, "help") or field.description)


def _extra(field: FieldInfo, name: str) -> Any:
    """What `json_schema_extra` of the field says, now: a function of it is asked, since registries grow."""
    extra = field.json_schema_extra
    value: Any = extra.get(name) if isinstance(extra, dict) else None
    return value() if callable(value) else value


def _describe(field: FieldInfo) -> tuple[str, str]:
    kind = _alternatives(field)[0]
    if _is_list(field):
        name = f"{_kind_name(typing.get_args(kind)[0])}, repeatable"
    elif _choices(field):
        name = "choice"
    else:
        name = _kind_name(kind)
    if field.is_required():
        return name, "required"
    default = field.get_default(call_default_factory=True)
    if default is None or default is PydanticUndefined or default in ([], {}, ""):
        return name, "default: unset"
    if isinstance(default, list):
        default = ",".join(map(str, default))
    return name, f"default: {str(default).lower() if isinstance(default, bool) else default}"


def _kind_name(kind: type) -> str:
    names = {"str": "text", "bool": "flag", "datetime": "time", "Literal": "name", "dict": "pairs"}
    return names.get(kind.__name__, kind.__name__)


def _flag(path: _Path) -> str:
    return "--" + "-".join(path).replace("_", "-")


def _set(values: dict[str, Any], path: _Path, value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value


def _merge(values: dict[str, Any], over: Mapping[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, Mapping) and isinstance(values.get(name), dict):
            _merge(values[name], value)
        else:
            values[name] = value


def _read_yaml(given: str, declaration: type[BaseModel]) -> dict[str, Any]:
    file = without_credentials(given)
    try:
        loaded = yaml.safe_load(Path(given).read_text(encoding="utf-8"))
    except OSError as problem:
        raise JobError(f"--config {file}: {problem.strerror or problem}") from problem
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # a ValueError: no UTF-8, no such date
        # Where, and not what: the line may hold a secret.
        mark = getattr(problem, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise JobError(f"--config {file} is not YAML{where}") from None
    if not isinstance(loaded, dict):
        raise JobError(f"--config {file} must hold 'field: value' lines, not {type(loaded).__name__}")
    _refuse_unknown(loaded, declaration, file)
    return loaded


def _refuse_unknown(
    values: Mapping[str, Any], declaration: type[BaseModel], file: str, where: str = ""
) -> None:
    parts = _parts(declaration)
    fields = {name: field for name, field in declaration.model_fields.items() if name not in parts}
    fields |= {
        field.alias or name: field for part in parts.values() for name, field in part.model_fields.items()
    }
    for name, value in values.items():
        field = fields.get(str(name))
        if field is None:
            raise JobError(
                f"--config {file}: unknown field '{where}{name}'" + _nearest(str(name), list(fields))
            )
        nested = field.annotation
        if isinstance(value, Mapping) and isinstance(nested, type) and issubclass(nested, BaseModel):
            _refuse_unknown(value, nested, file, f"{where}{name}.")


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _explain(problem: ValidationError, parts: Container[str], program: str) -> str:
    lines = []
    for error in problem.errors(include_url=False, include_input=False):
        place = [name for name in error["loc"] if isinstance(name, str) and name not in parts]
        name = "_".join(place)
        if error["type"] == "missing":
            lines.append(f"{name} is missing: give {_flag((name,))}, or '{name}:' in the --config file")
        else:
            message = error["msg"].removeprefix("Value error, ")
            # A rule on several fields names them itself.
            lines.append(f"{name}: {message}" if name else message)
    return "\n".join([*lines, f"(python {program} --help lists every field)"])
