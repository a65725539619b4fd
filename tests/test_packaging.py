"""The wheel in an environment of its own, and the versions that are pinned."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import w2vbert
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())


def folded(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> Iterator[Requirement]:
    """What the project and its extras name, but for the project itself."""
    for text in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            yield requirement


def test_every_dependency_is_pinned_to_a_version_that_it_may_have() -> None:
    pinned = {folded(name): pin for name, pin in PINNED.items()}
    for requirement in requirements():
        assert folded(requirement.name) in pinned, f"{requirement}: make constraints"
        assert requirement.specifier.contains(pinned[folded(requirement.name)]), requirement


def test_the_tests_run_with_the_versions_that_are_pinned() -> None:
    differing = {}
    for name, pin in PINNED.items():
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
        if installed != pin:
            differing[name] = (installed, pin)
    assert differing == {}, "make constraints"


def test_the_changelog_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(w2vbert.__version__)}\b", text, re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("w2vbert", "pipeline", "jobs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    made = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(made), str(source))
    (file,) = made.glob("*.whl")
    return file


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and the packages of this one behind it."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    pip("--python", str(home / "bin/python"), "install", "--no-deps", "--no-index", str(wheel))
    (packages,) = home.glob("lib/python3*/site-packages")
    others = next(place for place in sys.path if place.endswith("site-packages"))
    (packages / "others.pth").write_text(others + "\n")
    return home


@pytest.mark.slow
def test_the_wheel_holds_what_the_checkout_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "w2vbert", "pipeline", "jobs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {name for name in listed.stdout.splitlines() if (ROOT / name).exists()} <= held
    assert any(name.endswith("/licenses/LICENSE") for name in held)


@pytest.mark.slow
def test_it_works_from_any_directory(environment: Path, tmp_path: Path) -> None:
    def shown(*command: str) -> str:
        done = subprocess.run(
            [str(environment / "bin" / command[0]), *command[1:]],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import w2vbert, pipeline; print(w2vbert.__version__, w2vbert.__file__, pipeline.__file__)"
    told, *files = shown("python", "-c", code).split()
    assert told == w2vbert.__version__
    assert all(Path(file).is_relative_to(environment) for file in files)
    assert "--transcribe" in shown("python", "-m", "jobs.annotate", "--help")
    assert "nemo" in shown("python", "-m", "jobs.export", "--help")
    for name in PROJECT.get("scripts", {}):
        assert name in shown(name, "--help")
