"""The pages of promises promise nothing that no test holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENTS = [ROOT / "SECURITY.md", ROOT / "docs" / "guarantees.md"]
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@each_document
def test_every_promise_names_a_test_that_is_there(document: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text(encoding="utf-8"))
    assert len(named) > 10
    for file, test in named:
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef)
        }
        assert test in functions, f"{file}::{test}"


@each_document
def test_every_row_has_a_test(document: Path) -> None:
    lines = document.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and "---" not in line]
    assert [row for row in rows if "`tests/" not in row] == [row for row in rows if row.endswith("| test |")]


@each_document
def test_it_is_a_page(document: Path) -> None:
    assert len(document.read_text(encoding="utf-8").splitlines()) < 80
