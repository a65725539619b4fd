"""Flags, YAML file and environment of a job, from the one pydantic declaration of its spec."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from jobs.cli import show
from jobs.cli.console import Console
from jobs.cli.options import ENVIRONMENT_PREFIX, Option, Path, flag_of, nearest, options_of, parts_of
from jobs.cli.parser import CONFIG, Parser, brief_help, parser_of, see_help, split_positional
from jobs.cli.yaml_file import read_yaml
from pipeline.errors import JobError
from pipeline.storage import without_credentials

# Variables that no option of a job is: see w2vbert/kernels/backend.py and CONTRIBUTING.md.
_OTHER_VARIABLES = {CONFIG, *(f"{ENVIRONMENT_PREFIX}{name}" for name in ("BACKEND", "SHARED", "SOAK"))}
Spec = TypeVar("Spec", bound=BaseModel)


@dataclass(frozen=True)
class Told(Generic[Spec]):
    """What a job is told: what to do, and how to speak of it."""

    spec: Spec
    console: Console


class Settings:
    """Values by the path of their option, and where each came from; what is laid over others wins."""

    def __init__(self, options: Sequence[Option]) -> None:
        self._options = {option.path: option for option in options}
        self.values: dict[Path, Any] = {}
        self.origins: dict[Path, str] = {}

    def add(self, path: Path, value: Any, origin: str) -> None:
        self.values[path], self.origins[path] = value, origin

    def add_environment(self, environment: Mapping[str, str]) -> None:
        for path, option in self._options.items():
            if option.variable in environment:
                text = environment[option.variable]
                self.add(path, text.split() if option.is_list else text, option.variable)

    def add_file(self, given: str) -> None:
        """Raises JobError for a file that is none, or names a field that is none."""
        values, lines = read_yaml(given)
        file = without_credentials(given)
        for name, value in values.items():
            inner = {path[1]: path for path in self._options if len(path) > 1 and path[0] == name}
            if inner and isinstance(value, Mapping):
                for field, held in value.items():
                    path = (str(name), str(field))
                    self._add_line(path, held, file, lines, inner)
            else:
                known = {path[0]: path for path in self._options}
                self._add_line((str(name),), value, file, lines, known)

    def _add_line(
        self, path: Path, value: Any, file: str, lines: Mapping[Path, int], known: Iterable[str]
    ) -> None:
        where = f"{file}, line {lines[path]}"
        if path[-1] not in known:
            raise JobError(f"--config {where}: unknown field '{'.'.join(path)}'{nearest(path[-1], known)}")
        self.add(path, value, where)

    def add_flags(self, flags: Mapping[str, Any], places: Sequence[str]) -> None:
        for path, option in self._options.items():
            value = flags.get(option.name)
            if option.positional and places:
                value = [*(value or []), *places] if option.is_list else places[0]
            if value is not None:
                self.add(path, value, option.flag)

    def nested(self, options: Iterable[Option]) -> dict[str, Any]:
        """The values of these options, as a spec takes them."""
        values: dict[str, Any] = {}
        fields = {option.path[0] for option in options}
        for path, value in self.values.items():
            if path[0] not in fields:
                continue
            if len(path) == 1:
                values[path[0]] = value
            elif isinstance(held := values.setdefault(path[0], {}), dict):  # else it is wrong as a whole
                held[path[1]] = value
        return values

    def origin(self, place: Sequence[str]) -> str:
        """For a message on a value that does not fit: where it was given, if not by a flag."""
        origin = self.origins.get(tuple(place[:2])) or self.origins.get(tuple(place[:1])) or "--"
        return "" if origin.startswith("--") else f" ({origin})"


def read_spec(
    declaration: type[Spec],
    arguments: Sequence[str] | None,
    *,
    program: str,
    environment: Mapping[str, str] = os.environ,
) -> Spec:
    """What to do; see `read`."""
    return read(declaration, arguments, program=program, environment=environment).spec


def read(
    declaration: type[Spec],
    arguments: Sequence[str] | None,
    *,
    program: str,
    environment: Mapping[str, str] = os.environ,
) -> Told[Spec]:
    """Flags win over the YAML file (`--config`), the file over the environment (`W2VBERT_OUTPUT=…`).

    Args:
        arguments: None: this process's.
        program: how it was called: a file of jobs/, or the installed command.

    Raises:
        JobError: an unknown field or variable (with the nearest name), a value that does not fit, an
            unreadable file.
        SystemExit: `--help` and its like, or flags that there are not.
    """
    program = as_typed(program)
    own, general = list(options_of(declaration)), list(options_of(Console))
    options = [*own, *general]
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = parser_of(options, (declaration.__doc__ or "").strip(), program=program)
    told_by_environment = {CONFIG, *(option.variable for option in own)} & environment.keys()
    if not arguments and not told_by_environment:
        print(brief_help(parser, options), file=sys.stderr)
        raise SystemExit(2)
    flags, places = _parse(parser, options, arguments)
    if flags["json_schema"]:
        print(show.json_schema(declaration, options))
        raise SystemExit(0)
    settings = Settings(options)
    _refuse_unknown_variables(environment, [option.variable for option in options])
    settings.add_environment(environment)
    if (file := flags["config"] or environment.get(CONFIG)) is not None:
        settings.add_file(file)
    settings.add_flags(flags, places)
    told = Told(
        _validated(declaration, own, settings, program), _validated(Console, general, settings, program)
    )
    if flags["print_config"]:
        print(show.settings_as_yaml(options, settings.values, settings.origins))
        raise SystemExit(0)
    return told


def as_typed(program: str) -> str:
    """How a person calls it again."""
    return f"python {program}" if program.endswith(".py") else program


def _parse(
    parser: Parser, options: Sequence[Option], arguments: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Flags by the name of their option, and positional arguments."""
    known, unknown = parser.parse_known_args(arguments)
    strange, places = split_positional(unknown)
    if strange:
        # Without its value: it may be meant for a secret, which no flag takes.
        name = without_credentials(strange[0]).split("=")[0]
        parser.error(f"unknown argument {name}" + nearest(name, [option.flag for option in options]))
    taker = next((option for option in options if option.positional), None)
    if places and (taker is None or (len(places) > 1 and not taker.is_list)):
        parser.error(f"unexpected argument {without_credentials(places[0 if taker is None else 1])}")
    return vars(known), places


def _refuse_unknown_variables(environment: Mapping[str, str], known: Iterable[str]) -> None:
    """One environment may serve several jobs; what none of them knows is a mistake."""
    known = {*known, *_OTHER_VARIABLES}
    strange = sorted(
        name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known
    )
    if not strange:
        return
    from jobs.cli.declarations import all_variables

    everywhere = known | all_variables()
    for name in strange:
        if name not in everywhere:
            raise JobError(f"{name}: no job knows this environment variable{_nearest(name, everywhere)}")


def _nearest(name: str, variables: Iterable[str]) -> str:
    """By what differs: all of them begin alike."""
    bare = [each.removeprefix(ENVIRONMENT_PREFIX) for each in variables]
    return nearest(name.removeprefix(ENVIRONMENT_PREFIX), bare).replace("'", f"'{ENVIRONMENT_PREFIX}", 1)


def _validated(declaration: type[Spec], options: Sequence[Option], settings: Settings, program: str) -> Spec:
    try:
        return declaration.model_validate(settings.nested(options))
    except ValidationError as problem:
        raise JobError(_explain(problem, declaration, options, settings, program)) from None


def _explain(
    problem: ValidationError,
    declaration: type[BaseModel],
    options: Sequence[Option],
    settings: Settings,
    program: str,
) -> str:
    by_path = {option.path: option for option in options}
    lines = []
    for error in problem.errors(include_url=False, include_input=False):
        place = [name for name in error["loc"] if isinstance(name, str) and name not in parts_of(declaration)]
        name = "_".join(place)
        if error["type"] == "missing":
            lines.append(f"{name} is missing: give {flag_of((name,))}, or '{name}:' in the --config file")
            continue
        message = error["msg"].removeprefix("Value error, ")
        option = by_path.get(tuple(place))
        if option is not None and error["type"] == "literal_error":
            message += nearest(str(settings.values.get(option.path)), option.choices)
        # A rule on several fields names them itself.
        lines.append((f"{name}: {message}" if name else message) + settings.origin(place))
    return "\n".join([*lines, see_help(program)])
