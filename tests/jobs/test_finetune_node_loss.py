"""A node that is lost while it trains costs the steps since the last checkpoint, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.head_node import TOKEN, fresh_home
from tests.jobs.finetuning import FAST, assert_same_run, recordings, write_corpus


@pytest.mark.soak
@pytest.mark.usefixtures("own_cluster")
def test_training_goes_on_with_the_nodes_that_are_left(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", recordings(24))
    places = [corpus, *(tmp_path / name for name in ("features", "out", "again"))]
    with fresh_home() as (_, environment):
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, **FAST}
        ran = subprocess.run(
            [sys.executable, "-m", "tests.jobs.three_nodes", *map(str, places)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert "lost one of the 2 nodes that trained" in ran.stdout
    assert "nodes left 2" in ran.stdout
    assert_same_run(tmp_path / "again", tmp_path / "out")
