"""`w2vbert completion SHELL`: a script that completes the commands, their flags, choices and files."""

from __future__ import annotations

import argparse
from typing import Any

import shtab

from jobs.cli.declarations import all_options, declarations
from jobs.cli.parser import parser_of
from jobs.cli.signals import readers_may_leave


def print_script(shell: str) -> None:
    """For one of shtab's shells."""
    with readers_may_leave():
        print(shtab.complete(_parser(), shell=shell))


def _parser() -> argparse.ArgumentParser:
    """All commands in one: only their flags matter."""
    parser = argparse.ArgumentParser(prog="w2vbert", add_help=False)
    parser.add_argument("--help", action="store_true", help="show the commands")
    parser.add_argument("--version", action="store_true", help="show the version")
    commands = parser.add_subparsers()
    for name, declaration in declarations().items():
        options = all_options(declaration)
        about = (declaration.__doc__ or "").strip().splitlines()[0]
        parent = parser_of(options, about, program=f"w2vbert {name}")
        _with_values(parent, {option.name: option for option in options})
        commands.add_parser(name, parents=[parent], add_help=False, help=about)
    completion = commands.add_parser("completion", add_help=False, help="print a script for a shell")
    completion.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    return parser


def _with_values(parser: argparse.ArgumentParser, options: dict[str, Any]) -> None:
    """Adds what may follow a flag, and a place for positional arguments."""
    for action in parser._actions:
        option = options.get(action.dest)
        if option is not None and option.choices:
            action.choices = option.choices
        if action.dest == "config" or (option is not None and option.is_place):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    for option in options.values():
        if option.positional:
            place = parser.add_argument(f"{option.name}_places", nargs="*", help=option.summary)
            place.complete = shtab.FILE  # type: ignore[attr-defined]
