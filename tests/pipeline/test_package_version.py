"""Versions of packages, of this project's checkout where it is not installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version

import pytest

import pipeline
import w2vbert
from pipeline import package_version
from tests.conftest import ROOT


def not_installed(name: str) -> str:
    raise PackageNotFoundError(name)


def test_installed() -> None:
    assert package_version("numpy") == version("numpy")


def test_this_project_from_its_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "version", not_installed)
    assert package_version("w2vbert") == w2vbert.__version__ == "0.1.0"


def test_the_wheel_has_the_version_of_the_code() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert told["project"]["dynamic"] == ["version"]
    assert told["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "w2vbert.__version__"}


def test_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert package_version("no-such-package-anywhere") == "unknown"
    monkeypatch.setattr(pipeline, "version", not_installed)
    assert package_version("numpy") == "unknown"
