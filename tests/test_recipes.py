"""The recipes of docs/architecture.md, followed to the letter in a copy of the tree."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest
import soundfile

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
RECIPES = PAGE[PAGE.index("## Recipes") :]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", RECIPES, re.DOTALL)


def follow(tree: Path) -> None:
    """Writes the files and makes the edits."""
    for code in blocks("python"):
        first, _, rest = code.partition("\n")
        file = tree / first.removeprefix("# ")
        assert not file.exists()
        file.write_text(rest, encoding="utf-8")
    for edit in blocks("diff"):
        name, _, rest = edit.partition("\n")
        file = tree / name
        text = file.read_text(encoding="utf-8")
        for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", rest, re.MULTILINE):
            before = re.sub(r"^-", "", old, flags=re.MULTILINE)
            assert text.count(before) == 1, before
            text = text.replace(before, re.sub(r"^\+", "", new, flags=re.MULTILINE))
        file.write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("local_ray")
def test_an_annotation_a_reader_and_an_export(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for folder in ("jobs", "pipeline", "w2vbert", "demo"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "out"))
    follow(tree)
    spoken, rate = soundfile.read(ROOT / "demo" / "audio" / "clip-0.flac", dtype="float32")
    np.savez(tree / "corpus.npz", rate=rate, spoken=spoken)
    (commands,) = blocks("sh")
    for command in commands.strip().splitlines():
        words = [sys.executable if word == "python" else word for word in shlex.split(command)]
        done = subprocess.run(words, cwd=tree, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (row,) = duckdb.sql(f"SELECT clip_id, text, loudness, peak FROM '{tree}/table/*.parquet'").fetchall()
    assert row[:2] == ("corpus.npz#spoken", "six one nine three")
    assert 0.5 < row[2] < 1.0
    assert row[3] == pytest.approx(float(np.abs(spoken).max()))
    words = (tree / "words.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[3] for line in words] == ["six", "one", "nine", "three"]


def test_the_page_names_every_room() -> None:
    rooms = {
        path.stem
        for path in (ROOT / "pipeline").iterdir()
        if path.name[0] not in "_." and (path.is_dir() or path.suffix == ".py")
    }
    table = PAGE[PAGE.index("## Rooms") : PAGE.index("## Recipes")]
    named = set(re.findall(r"`(\w+)/?`", table))
    assert rooms <= named
