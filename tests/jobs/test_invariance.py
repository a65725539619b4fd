"""The table does not depend on how the work was cut up: order, batches, budgets, actors, files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.job import run
from pipeline.spec import AnnotateSpec
from tests.conftest import ROOT
from tests.jobs.peers import build, save
from tests.jobs.tables import Row, assert_close, rows_of

pytestmark = pytest.mark.usefixtures("local_ray")
TASKS = ("transcribe", "classify", "diarize", "embed")
# Windows of two seconds: most of the demo's clips have seams.
SETTINGS: dict[str, Any] = {"window_s": 2.0, "overlap_s": 0.5}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("checkpoints")
    return {task: str(save(build(task), home / task)) for task in TASKS}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("demo")
    for folder in ("corpus", "audio"):
        shutil.copytree(ROOT / "demo" / folder, home / folder)
    return home / "corpus"


@pytest.fixture(scope="module")
def table(
    corpus: Path, checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Row]:
    output = tmp_path_factory.mktemp("plain") / "out"
    run(AnnotateSpec(input=[str(corpus)], output=str(output), **checkpoints, **SETTINGS))
    return rows_of(output)


@pytest.mark.parametrize(
    "other",
    [
        {"token_budget": 1, "rows_per_file": 1},
        {"token_budget": 170, "num_actors": "2", "featurize_actors": 2},
        {"token_budget": 100_000, "num_actors": "3"},
        {"dtype": "float32", "shuffled": True},
    ],
    ids=["alone", "small packs, two actors", "large packs, three actors", "shuffled input"],
)
def test_the_same_table(
    other: dict[str, Any], corpus: Path, checkpoints: dict[str, str], table: dict[str, Row], tmp_path: Path
) -> None:
    inputs = [str(corpus)]
    if other.pop("shuffled", False):
        # The parts of the tree one by one, backwards: ids then start inside them.
        inputs = [str(part) for part in sorted(corpus.glob("*"), reverse=True)]
        table = {clip_id.split("/", 1)[-1]: row for clip_id, row in table.items()}
    run(AnnotateSpec(input=inputs, output=str(tmp_path / "out"), **{**checkpoints, **SETTINGS, **other}))
    found = rows_of(tmp_path / "out")
    assert found.keys() == table.keys()
    for clip_id, row in found.items():
        for name, value in row.items():
            if name not in ("clip_id", "shard", "encoder_s"):
                assert_close(value, table[clip_id][name], f"{clip_id} {name}")
