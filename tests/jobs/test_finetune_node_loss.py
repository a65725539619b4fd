"""A node that is lost while it trains costs the steps since the last checkpoint, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.head_node import run_program
from tests.jobs.finetuning import FAST, assert_same_run, recordings, write_corpus


@pytest.mark.soak
@pytest.mark.usefixtures("own_cluster")
def test_training_goes_on_with_the_nodes_that_are_left(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", recordings(24))
    places = [corpus, *(tmp_path / name for name in ("features", "out", "again"))]
    said = run_program("tests.jobs.three_nodes", *places, timeout_s=500, **FAST)
    assert "lost one of the 2 nodes that trained" in said
    assert "nodes left 2" in said
    assert_same_run(tmp_path / "again", tmp_path / "out")
