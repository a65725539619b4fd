"""Versions of packages, of this project's checkout where it is not installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version

import pytest

import pipeline
from pipeline import package_version
from tests.conftest import ROOT


def not_installed(name: str) -> str:
    raise PackageNotFoundError(name)


def test_installed() -> None:
    assert package_version("numpy") == version("numpy")


def test_this_project_from_its_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "version", not_installed)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert package_version(project["name"]) == project["version"]


def test_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert package_version("no-such-package-anywhere") == "unknown"
    monkeypatch.setattr(pipeline, "version", not_installed)
    assert package_version("numpy") == "unknown"
