"""Clips that take processes down: each is one error row, and costs no other clip its row. Nor does what
counts and remembers, when it dies, cost any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import soundfile

from pipeline.corpus import readers
from pipeline.corpus.readers.base import TABLE_ROWS
from pipeline.engine.run_state import RunState
from pipeline.job import run
from pipeline.reports.summary import EncoderUse
from pipeline.spec import annotate_spec
from pipeline.tasks import TASKS, register
from tests.conftest import ROOT
from tests.jobs import fatal
from tests.jobs.tables import rows_of

pytestmark = pytest.mark.usefixtures("local_ray")
FATAL = (fatal.CRASHES_DETECTOR, fatal.POISONS_DEVICE, fatal.EXITS, fatal.KILLED_ONCE)
DIED = "the process died twice on this clip, the second time with this clip alone: "


@pytest.fixture
def registered() -> Iterator[None]:
    register(fatal.FATAL)
    readers.register(fatal.FatalReader())
    yield
    del TASKS["fatal"], readers.READERS["fatal"]


def stem(seconds: float) -> str:
    return f"{round(100 * seconds)}"


def clip_id(seconds: float) -> str:
    return f"{stem(seconds)}.wav#{stem(seconds)}"


class Killed(RunState):
    """At the start, so that all that counts does so in vain."""

    def __init__(self) -> None:
        super().__init__()
        ray.get(self._actor.sums.remote())
        ray.kill(self._actor, no_restart=False)


def test_each_killer_is_one_error_row(
    tmp_path: Path, registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.run.RunState", Killed)
    corpus, deaths = tmp_path / "in", tmp_path / "deaths"
    for folder in (corpus, deaths):
        folder.mkdir()
    rng = np.random.default_rng(0)
    harmless = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    for seconds in (*FATAL, *harmless):
        soundfile.write(
            corpus / f"{stem(seconds)}.wav", rng.standard_normal(round(16_000 * seconds)) * 0.1, 16_000
        )
    (corpus / "x.fatal").write_bytes(b"x")
    spec = annotate_spec()(
        input=[str(corpus)],
        output=str(tmp_path / "out"),
        fatal=str(ROOT / "demo" / "checkpoint"),
        folder=str(deaths),
        vad="tests.jobs.fatal:Detector",
    )
    summary = run(spec)
    dtype = "float32 (auto: for encoders 96 wide on CPUs)"
    assert summary.encoder == EncoderUse(None, None, [["fatal"]], dtype)

    rows = rows_of(tmp_path / "out")
    assert len(rows) == TABLE_ROWS + 1 + len(FATAL) + len(harmless) == summary.tally.clips
    errors = {clip_id: row["error"] for clip_id, row in rows.items() if row["error"]}
    read = [errors.pop(f"x.fatal#{number}") for number in range(TABLE_ROWS)]
    assert {error["message"] for error in read} == {"nothing is here"}
    crashed = f"{DIED}it crashed, or took more memory than there is"
    assert errors == {
        "x.fatal#": {
            "stage": "read",
            "code": "broken_shard",
            "message": "x.fatal cannot be read to its end: the process that read it died three times at the "
            "same place: it crashed, or took more memory than there is",
        },
        clip_id(fatal.CRASHES_DETECTOR): {"stage": "decode", "code": "undecodable", "message": crashed},
        clip_id(fatal.EXITS): {"stage": "annotate", "code": "model_failed", "message": crashed},
        clip_id(fatal.POISONS_DEVICE): {
            "stage": "annotate",
            "code": "model_failed",
            "message": f"{DIED}AcceleratorError: {fatal.ILLEGAL}",
        },
    }
    assert all((row["size"] is None) == (row["error"] is not None) for row in rows.values())
    kills = {file.name: len(file.read_text().splitlines()) for file in deaths.iterdir()}
    assert kills.keys() == {str(seconds) for seconds in FATAL[1:]}
    assert kills[str(fatal.KILLED_ONCE)] == 1
    assert max(kills.values()) == 2
    # Actors on CPUs see no GPU: Ray would show them all of a node.
    assert {row["visible"] for row in rows.values() if row["error"] is None} == {""}
