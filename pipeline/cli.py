"""Command line, YAML file and environment of a job, from the one pydantic declaration of its spec."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.errors import JobError
from pipeline.spec import JobSpec

ENVIRONMENT_PREFIX = "W2VBERT_"
Spec = TypeVar("Spec", bound=BaseModel)
Done = TypeVar("Done")
_Path = tuple[str, ...]


def read_spec(
    declaration: type[Spec],
    arguments: Sequence[str],
    *,
    program: str,
    environment: Mapping[str, str] = os.environ,
) -> Spec:
    """Flags win over the YAML file (`--config`), the file over the environment (`W2VBERT_OUTPUT=…`).

    Raises:
        JobError: an unknown field (with the nearest name), a value that does not fit, an unreadable file.
        SystemExit: `--help`, or flags that argparse refuses.
    """
    parser = _parser(declaration, program)
    if not arguments:
        parser.print_help()
        raise SystemExit(2)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = [_flag(path) for path, _ in _fields(declaration)]
        parser.error(f"unknown argument {unknown[0]}" + _nearest(unknown[0].split("=")[0], flags))
    flags_given = vars(known)
    config_file = flags_given.pop("config", None)

    values: dict[str, Any] = {}
    for path, field in _fields(declaration):
        name = ENVIRONMENT_PREFIX + "_".join(path).upper()
        if name in environment:
            text = environment[name]
            _set(values, path, text.split() if _is_list(field) else text)
    if config_file is not None:
        _merge(values, _read_yaml(config_file, declaration))
    for path, _ in _fields(declaration):
        if (value := flags_given.get(".".join(path))) is not None:
            _set(values, path, value)
    try:
        return declaration.model_validate(values)
    except ValidationError as problem:
        raise JobError(_explain(problem, program)) from None


def _fields(declaration: type[BaseModel], prefix: _Path = ()) -> Iterator[tuple[_Path, FieldInfo]]:
    for name, field in declaration.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, (*prefix, name))
        else:
            yield (*prefix, name), field


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
    for path, field in sorted(_fields(declaration), key=partial(_rank, declaration)):
        if SecretStr in _alternatives(field):
            continue  # process lists and job logs show flags; secrets come from the environment or the file
        kind, default = _describe(field)
        options: dict[str, Any] = {"dest": ".".join(path), "help": f"{_help(field)} ({kind}; {default})"}
        if bool in _alternatives(field):
            options["action"] = argparse.BooleanOptionalAction
        elif _is_list(field):
            options |= {"action": "append", "metavar": kind.upper()}
        elif choices := _choices(field):
            options["choices"] = choices
        else:
            options["metavar"] = kind.upper()
        options["help"] = options["help"].replace("%", "%%")
        parser.add_argument(_flag(path), **options)
    return parser


def _rank(declaration: type[BaseModel], named: tuple[_Path, FieldInfo]) -> int:
    """What must be given comes first in the help, then what only this job has."""
    (name, *_), field = named
    return 0 if field.is_required() else 1 if name in declaration.__annotations__ else 2


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
        name = f"{typing.get_args(kind)[0].__name__}, repeatable"
    elif _choices(field):
        name = "choice"
    else:
        name = {"str": "text", "bool": "flag", "datetime": "time"}.get(kind.__name__, kind.__name__)
    if field.is_required():
        return name, "required"
    default = field.get_default(call_default_factory=True)
    if default is None or default is PydanticUndefined:
        return name, "default: unset"
    return name, f"default: {str(default).lower() if isinstance(default, bool) else default}"


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


def _read_yaml(file: str, declaration: type[BaseModel]) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as problem:
        raise JobError(f"--config {file}: {problem.strerror or problem}") from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise JobError(f"--config {file} is not YAML: {problem}") from problem
    if not isinstance(loaded, dict):
        raise JobError(f"--config {file} must hold 'field: value' lines, not {type(loaded).__name__}")
    _refuse_unknown(loaded, declaration, file)
    return loaded


def _refuse_unknown(
    values: Mapping[str, Any], declaration: type[BaseModel], file: str, where: str = ""
) -> None:
    for name, value in values.items():
        field = declaration.model_fields.get(str(name))
        if field is None:
            raise JobError(
                f"--config {file}: unknown field '{where}{name}'"
                + _nearest(str(name), list(declaration.model_fields))
            )
        nested = field.annotation
        if isinstance(value, Mapping) and isinstance(nested, type) and issubclass(nested, BaseModel):
            _refuse_unknown(value, nested, file, f"{where}{name}.")


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _explain(problem: ValidationError, program: str) -> str:
    lines = []
    for error in problem.errors(include_url=False, include_input=False):
        name = "_".join(str(part) for part in error["loc"] if not isinstance(part, int))
        if error["type"] == "missing":
            lines.append(f"{name} is missing: give {_flag((name,))}, or '{name}:' in the --config file")
        else:
            message = error["msg"].removeprefix("Value error, ")
            # A rule on several fields names them itself.
            lines.append(f"{name}: {message}" if name else message)
    return "\n".join([*lines, f"(python {program} --help lists every field)"])


def run_job(declaration: type[JobSpec], arguments: Sequence[str] | None, *, program: str) -> int:
    """A job from its command line (None: this process's) to its exit status.

    0: complete, or planned; 2: bad configuration; 3: more error rows than --max-error-rate.
    """
    try:
        spec = read_spec(declaration, sys.argv[1:] if arguments is None else arguments, program=program)
        # After the flags are read: --help and mistakes should not wait for torch.
        if spec.plan:
            from pipeline.reports import plan

            print(plan.for_the_eye(plan.look_ahead(spec)))
            return 0
        from pipeline.job import run
        from pipeline.reports.summary import for_the_eye

        summary = run(spec)
    except JobError as problem:
        return _fail(program, problem)
    print(for_the_eye(summary))
    if summary["error_rate"] > spec.max_error_rate:
        print(
            f"{program}: {summary['error_rate']:.1%} of the clips are error rows, "
            f"more than --max-error-rate {spec.max_error_rate:g}",
            file=sys.stderr,
        )
        return 3
    return 0


def run_tool(
    declaration: type[Spec],
    work: Callable[[Spec], Done],
    show: Callable[[Done], str],
    arguments: Sequence[str] | None,
    *,
    program: str,
) -> int:
    """A tool on a finished table, from its command line to its exit status: 0 done, 2 bad configuration."""
    try:
        done = work(read_spec(declaration, sys.argv[1:] if arguments is None else arguments, program=program))
    except JobError as problem:
        return _fail(program, problem)
    print(show(done))
    return 0


def _fail(program: str, problem: JobError) -> int:
    """Prints what stopped the job; the exit status for it."""
    message = str(problem).replace("\n", "\n  ")
    print(f"{program}: {message}", file=sys.stderr)
    return 2
