"""The command line of a job, and the two lengths of its help."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from jobs.cli.options import ENVIRONMENT_PREFIX, Option
from pipeline import package_version

CONFIG = f"{ENVIRONMENT_PREFIX}CONFIG"
BRIEF_LINES = 25
_MOST_USED = (
    *("report", "plan", "where", "limit", "dtype", "num_actors", "overwrite", "json"),
    *("valid", "rttm", "max_steps", "num_epochs", "learning_rate"),
)
_COMMON = ("input", "output", "model", "running", "cluster", "storage", "messages")  # groups of many jobs
_FIRST_COLUMN = 28
_WITHOUT_VALUE = re.compile(r"argument ([^\s/]+)\S*: (?:expected|ignored)")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        if missing := _WITHOUT_VALUE.match(message):
            message = f"{missing[1]} {'needs a' if 'expected' in message else 'takes no'} value"
        self.exit(2, f"{self.prog.removeprefix('python ')}: {message}\n{see_help(self.prog)}\n")


def see_help(program: str) -> str:
    return f"see: {program} --help"


def parser_of(options: Sequence[Option], about: str, *, program: str) -> Parser:
    """The parser of flags; values are left to the spec, which knows better what is wrong with them.

    Args:
        about: what the job does.
    """
    options = sorted(options, key=lambda option: option.rank)
    parser = Parser(
        prog=program,
        usage=_usage(options, program),
        description=about,
        epilog="Every field may also stand in the YAML file, or in the environment as "
        f"{ENVIRONMENT_PREFIX}<FIELD> (a list's words separated by spaces). "
        "Flags win over the file, the file over the environment.",
        argument_default=None,
        allow_abbrev=False,
        add_help=False,
    )
    _add_general(parser, options)
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    for option in options:
        if option.is_secret:
            continue
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        groups[option.group].add_argument(option.flag, **_arguments(option))
    return parser


def split_positional(unknown: Iterable[str]) -> tuple[list[str], list[str]]:
    """What the parser did not know: (flags, positional arguments)."""
    flags, places, only_places = list[str](), list[str](), False
    for word in unknown:
        if word == "--" and not only_places:
            only_places = True
        elif word.startswith("-") and word != "-" and not only_places:
            flags.append(word)
        else:
            places.append(word)
    return flags, places


def _usage(options: Sequence[Option], program: str) -> str:
    places = [f"[{option.name.upper()} ...]" for option in options if option.positional]
    required = [
        f"{option.flag} {option.metavar}"
        for option in options
        if option.field.is_required() and not option.positional
    ]
    return " ".join([program, *places, *required, "[options]"])


def _add_general(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    parser.add_argument("-h", action=_Brief, options=options, help="show the most used options")
    parser.add_argument("--help", action="help", help="show all options")
    version = f"w2vbert {package_version('w2vbert')}"
    parser.add_argument("--version", action="version", version=version, help="show the version")
    config = f"YAML file with any of the fields below; unset: that of {CONFIG}"
    parser.add_argument("--config", metavar="FILE", help=config)
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the settings as such a file, with where each comes from, then exit",
    )
    parser.add_argument(
        "--json-schema", action="store_true", help="print the JSON Schema of such a file, then exit"
    )


def _arguments(option: Option) -> dict[str, Any]:
    """A flag as argparse takes it."""
    text = f"{option.help} ({option.kind}; {option.default_text})"
    given: dict[str, Any] = {"dest": option.name, "help": text.replace("%", "%%")}
    if option.is_flag:
        return given | {"action": argparse.BooleanOptionalAction}
    return given | {"metavar": option.metavar} | ({"action": "append"} if option.is_list else {})


class _Brief(argparse.Action):
    """Prints what most people need."""

    def __init__(self, *, options: Sequence[Option], **given: Any) -> None:
        super().__init__(**given, nargs=0)
        self.options = options

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        print(brief_help(parser, self.options))
        parser.exit()


def brief_help(parser: argparse.ArgumentParser, options: Sequence[Option]) -> str:
    """At most `BRIEF_LINES` lines."""
    columns = max(60, min(shutil.get_terminal_size().columns, 110))
    head = [*textwrap.wrap(f"usage: {parser.usage}", columns, subsequent_indent="       "), ""]
    head += [*textwrap.wrap(str(parser.description), columns)[:3], ""]
    tail = ["", f"All options, and the file and variables that may hold them: {parser.prog} --help"]
    public = [option for option in options if not option.is_secret]
    shown = sorted(public, key=_importance)[: BRIEF_LINES - len(head) - len(tail) - 1]
    lines = [_brief_line("--config FILE", "YAML file with any of these", columns)]
    for option in sorted(shown, key=lambda option: option.rank):
        flag = option.flag if option.is_flag else f"{option.flag} {option.metavar}"
        lines.append(_brief_line(flag, option.summary, columns))
    return "\n".join([*head, *lines, *tail])


def _brief_line(flag: str, text: str, columns: int) -> str:
    flag, text = (
        textwrap.shorten(words, width, placeholder=cut, break_long_words=False, break_on_hyphens=False)
        for words, width, cut in ((flag, _FIRST_COLUMN - 3, ""), (text, columns - _FIRST_COLUMN, " …"))
    )
    return f"  {flag:<{_FIRST_COLUMN - 2}}{text}"


def _importance(option: Option) -> int:
    """What must be given, what is given most, what the job has of its own, and the rest."""
    if option.field.is_required() or (option.group == "model" and option.first):
        return 0
    if option.name in _MOST_USED:
        return 1
    return 3 if option.group in _COMMON else 2
