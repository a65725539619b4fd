"""Each example runs as its first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_model() -> None:
    text, *words = run("model.py")
    assert text == "six one nine three"
    assert words[0].split() == ["0.12", "0.26", "six"]
    assert [line.split()[2] for line in words] == text.split()


@pytest.mark.slow
def test_stages() -> None:
    lines = run("stages.py")
    assert len(lines) == 30
    assert "manifest/list.jsonl#1: six one nine three" in lines
    assert sum("neither libsndfile nor FFmpeg knows the format" in line for line in lines) == 1


@pytest.mark.usefixtures("local_ray")
def test_job(tmp_path: Path) -> None:
    shown = "\n".join(run("job.py", str(tmp_path / "table")))
    assert "clips       30 (29 annotated)" in shown
    assert "text_confidence" in shown


def test_all_are_here() -> None:
    assert sorted(file.name for file in (ROOT / "examples").iterdir() if file.suffix == ".py") == [
        "job.py",
        "model.py",
        "stages.py",
    ]
