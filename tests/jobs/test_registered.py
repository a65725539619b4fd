"""Annotations and readers that are defined in a test take part in whole jobs, workers and all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jobs.cli import command
from pipeline.corpus.readers import READERS, register
from pipeline.tasks import TASKS
from pipeline.tasks import register as register_task
from tests.conftest import ROOT
from tests.jobs.tables import log_of, rows_of
from tests.pipeline.corpus.test_a_new_reader import NpzReader, noise
from tests.pipeline.tasks.test_a_new_task import LOUDNESS
from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertModel

CHECKPOINT = str(ROOT / "demo" / "checkpoint")
pytestmark = pytest.mark.usefixtures("local_ray")


def mean_size(samples: NDArray[np.float32]) -> float:
    """Of the layer-normalised features."""
    norm = Wav2Vec2BertModel.from_pretrained(CHECKPOINT).feature_projection.layer_norm
    features = torch.from_numpy(SeamlessM4TFeatureExtractor().extract(samples, keep_partial=True))
    with torch.inference_mode():
        return float(norm(features).abs().mean())


@pytest.fixture
def loudness() -> Iterator[None]:
    register_task(LOUDNESS)
    yield
    del TASKS["loudness"]


@pytest.fixture
def npz() -> Iterator[None]:
    register(NpzReader())
    yield
    del READERS["npz"]


@pytest.mark.usefixtures("loudness", "npz")
def test_a_fifth_annotation_of_a_fifth_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "a.npz", rate=16_000, one=noise(1), two=noise(2), bad=noise(3)[:10])
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    arguments += ["--loudness", CHECKPOINT, "--transcribe", CHECKPOINT, "--gain", "2"]
    assert command("annotate")(arguments) == 0
    rows = rows_of(tmp_path / "out")
    assert {clip_id: row["error"] and row["error"]["code"] for clip_id, row in rows.items()} == {
        "a.npz#one": None,
        "a.npz#two": None,
        "a.npz#bad": "too_short",
    }
    found = [rows[f"a.npz#{key}"]["loudness"] for key in ("one", "two")]
    assert found == pytest.approx([2 * mean_size(noise(seed)) for seed in (1, 2)], rel=1e-4)
    assert rows["a.npz#one"]["ref_text"] == "the words of one"
    assert rows["a.npz#one"]["peak"] == pytest.approx(float(np.abs(noise(1)).max()))
    summary = next(f for f in log_of(tmp_path / "out").glob("2*.json"))
    assert json.loads(summary.read_text())["loudness"] == pytest.approx(np.mean(found))
    assert f"loudness    {np.mean(found):.3f}" in capsys.readouterr().out
