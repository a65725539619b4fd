"""From audio shards to a Parquet table of annotations; docs/architecture.md says how."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def package_version(name: str) -> str:
    """The version of an installed package, of this project from its checkout too; else "unknown"."""
    try:
        return version(name)
    except PackageNotFoundError:
        file = Path(__file__).resolve().parent.parent / "pyproject.toml"
        project = tomllib.loads(file.read_text("utf-8"))["project"] if file.is_file() else {}
        return str(project.get("version")) if project.get("name") == name else "unknown"
