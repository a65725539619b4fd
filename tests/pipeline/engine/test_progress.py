"""How many clips a run expects, from what its tasks have read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.corpus.columns import Passthrough
from pipeline.corpus.listing import discover
from pipeline.corpus.parts import Selection
from pipeline.engine.datasource import AudioShards
from pipeline.engine.graph import Graph
from pipeline.engine.run_state import RunState
from pipeline.reports.progress import Progress
from pipeline.storage import Storage, StorageOptions
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("local_ray")
STORAGE = Storage(StorageOptions())
CORPUS = ROOT / "demo/corpus"


@pytest.fixture
def state() -> Iterator[RunState]:
    made = RunState()
    yield made
    made.close()


def graph(folder: Path, state: RunState, limit: int | None = None) -> Graph:
    shards = discover([str(folder)], STORAGE, outputs=[])
    nothing = Passthrough(pa.schema([]))
    source = AudioShards(shards, STORAGE, nothing, Selection(), lambda *given: None, state)
    return Graph(source, lambda: lambda clips, starting: iter(()), None, limit)


def test_loose_files_are_counted_before_they_are_read(state: RunState) -> None:
    loose = graph(CORPUS / "loose", state)
    assert loose.progress({}, 1.0) == Progress(0, 0, 0.0, 1.0, 6, True)
    assert loose.source.expected(3, 10.0) == (6, True)


def test_what_shards_hold_follows_from_those_that_were_read(state: RunState) -> None:
    mixed = graph(CORPUS, state)
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    sums = {("featurize", "seconds"): 2.0, ("annotate", "clips"): 4.0, ("annotate", "errors"): 1.0}
    assert mixed.progress(sums, 5.0) == Progress(4, 1, 0.0, 5.0)
    sums |= {("read", "found"): 10.0, ("read", "bytes"): size / 2, ("annotate 2", "audio_s"): 8.0}
    assert mixed.progress(sums, 5.0) == Progress(4, 1, 8.0, 5.0, 20, False)
    sums |= {("read", "found"): 30.0, ("read", "bytes"): float(size)}
    assert mixed.progress(sums, 5.0) == Progress(4, 1, 8.0, 5.0, 30, True)
    # Tasks that came twice.
    assert mixed.source.expected(45, size * 1.5) == (30, True)


def test_a_limit_is_what_is_expected(state: RunState) -> None:
    assert graph(CORPUS, state, 5).progress({}, 1.0).expected == 5
    assert graph(CORPUS / "loose", state, 5).progress({}, 1.0).expected == 5
    assert graph(CORPUS / "loose", state, 50).progress({}, 1.0).expected == 6
