"""SECURITY.md promises nothing that no test holds, and is a page."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

DOCUMENT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_promise_names_a_test_that_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT)
    assert len(named) > 10
    for file, test in named:
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef)
        }
        assert test in functions, f"{file}::{test}"


def test_every_row_has_a_test() -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| ") and "---" not in line]
    assert [row for row in rows if "`tests/" not in row] == [row for row in rows if row.endswith("| test |")]


def test_it_is_a_page() -> None:
    assert len(DOCUMENT.splitlines()) < 80
