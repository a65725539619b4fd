"""A fifth annotation, defined here and nowhere else: `loudness`, a number for each clip."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
import pyarrow as pa
import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field

from jobs.cli import command
from pipeline.corpus.columns import reserved_names
from pipeline.schema import output_schema
from pipeline.spec import annotate_spec, job_spec
from pipeline.storage import Storage, StorageOptions
from pipeline.tasks import TASKS, columns_of, register
from pipeline.tasks.base import CHANGES_OUTPUT, ClipFrames, HeadParts, PackedWindow, Task, Values
from tests.conftest import ROOT
from tests.pipeline.annotate.features import annotator, feature_table, noise
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.model import Encoding, Wav2Vec2BertModel
from w2vbert.packing import Packed

DEMO = ROOT / "demo"


# The annotation


class LoudnessOptions(BaseModel):
    model_config = ConfigDict(title="loudness")

    gain: float = Field(1.0, description="factor on the loudness", json_schema_extra=CHANGES_OUTPUT)


class LoudnessHead:
    """The mean size of what the encoder reads; its model is the bare encoder."""

    def __init__(self, parts: HeadParts) -> None:
        self.model: Wav2Vec2BertModel = parts.model
        self.gain: float = parts.options.gain

    def outputs(self, encoding: Encoding, windows: Sequence[PackedWindow]) -> Sequence[Any]:
        return [frames.abs().mean(dim=1) for frames in encoding.extract_features.split()]

    def accumulator(self, clip: ClipFrames) -> LoudnessAccumulator:
        return LoudnessAccumulator(self.gain)


class LoudnessAccumulator:
    def __init__(self, gain: float) -> None:
        self.gain, self.sum, self.frames = gain, 0.0, 0

    def add(self, window: Any, outputs: Mapping[str, Any]) -> None:
        self.sum += float(outputs["loudness"].sum())
        self.frames += len(outputs["loudness"])

    def finish(self) -> Values:
        return {"loudness": self.gain * self.sum / self.frames if self.frames else None}


@dataclass
class MeanLoudness:
    """Over all clips."""

    sum: float = 0.0
    clips: int = 0

    columns = ("loudness",)

    def add_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        found = [row["loudness"] for row in rows if row.get("loudness") is not None]
        self.sum, self.clips = self.sum + sum(found), self.clips + len(found)

    def add(self, other: MeanLoudness) -> None:
        self.sum, self.clips = self.sum + other.sum, self.clips + other.clips

    def facts(self) -> dict[str, Any]:
        return {"loudness": self.sum / self.clips if self.clips else None}

    def lines(self) -> list[tuple[str, str]]:
        return [("loudness", f"{self.sum / self.clips:.3f}")] if self.clips else []


LOUDNESS = Task(
    name="loudness",
    does="measures loudness",
    about="Measure the loudness of clips.",
    makes="a loudness",
    model=lambda: Wav2Vec2BertModel,
    options=LoudnessOptions,
    columns=lambda options, config: {"loudness": pa.float32()},
    column_names=frozenset({"loudness"}),
    head=LoudnessHead,
    metric=lambda options, storage: MeanLoudness(),
)


# What it takes part in


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(LOUDNESS)
    yield
    del TASKS["loudness"]


def test_it_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command("annotate")(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--loudness TEXT checkpoint that measures loudness: a local directory" in text
    assert "loudness: --gain FLOAT factor on the loudness (float; default: 1.0)" in text
    with pytest.raises(SystemExit):
        command("loudness")(["--help"])
    assert "Measure the loudness of clips." in capsys.readouterr().out


def test_it_is_in_the_specs() -> None:
    spec = annotate_spec()(input=["in"], output="out", loudness="here", gain=2.0)
    assert spec.models == {"loudness": "here"}
    assert spec.tasks == {"loudness": LOUDNESS}
    assert spec.options("loudness") == LoudnessOptions(gain=2.0)
    assert spec.output_settings()["gain"] == 2.0
    assert spec.public()["gain"] == 2.0
    assert job_spec("loudness")(input=["in"], output="out", model="here").models == {"loudness": "here"}
    from pipeline.spec import AnnotateSpec, LoudnessSpec

    assert AnnotateSpec is annotate_spec()
    assert LoudnessSpec is job_spec("loudness")


def test_it_is_in_the_table() -> None:
    options = {"loudness": LoudnessOptions()}
    schema = output_schema(pa.schema([]), columns_of({"loudness": LOUDNESS}, options, {"loudness": None}))
    assert schema.field("loudness").type == pa.float32()
    assert "loudness" in reserved_names()


@pytest.mark.parametrize(
    "models",
    [
        {"loudness": "checkpoint"},
        {"loudness": "checkpoint", "transcribe": "checkpoint", "embed": "embed"},
        {"transcribe": "checkpoint", "loudness": "classify", "embed": "embed"},
    ],
)
def test_it_gets_its_values(models: dict[str, str]) -> None:
    """Alone, first and later among tasks that share its encoder."""
    extractor = SeamlessM4TFeatureExtractor()
    clips = [noise(1), noise(2, seed=1)]
    stage = annotator(
        {task: DEMO / model for task, model in models.items()}, options={"loudness": LoudnessOptions(gain=10)}
    )
    found = stage(feature_table(extractor, clips))
    model = Wav2Vec2BertModel.from_pretrained(DEMO / "checkpoint").eval()
    for row, samples in zip(found.to_pylist(), clips, strict=True):
        assert row["error"] is None
        features = torch.from_numpy(extractor.extract(samples, keep_partial=True))
        with torch.inference_mode():
            encoding = model.encode(Packed.from_sequences([features]), num_valid=[len(features)])
        assert row["loudness"] == pytest.approx(10 * encoding.extract_features.frames.abs().mean().item())
    assert set(found.schema.names) >= {"loudness"} | ({"text", "embedding"} if len(models) > 1 else set())


def test_its_metric_is_in_the_summary() -> None:
    spec = annotate_spec()(input=["in"], output="out", loudness="here")
    metrics = spec.metrics(Storage(StorageOptions()))
    assert list(metrics) == ["transcribe", "diarize", "loudness"]
    for metric in metrics.values():
        metric.add_rows([{"loudness": 1.0}, {"loudness": None}, {"loudness": 3.0}])
    facts = {key: value for metric in metrics.values() for key, value in metric.facts().items()}
    assert (facts["loudness"], facts["wer"], facts["der"]) == (2.0, None, None)
    assert [line for metric in metrics.values() for line in metric.lines()] == [("loudness", "2.000")]


def test_it_travels_to_workers() -> None:
    again = pickle.loads(cloudpickle.dumps(LOUDNESS))
    assert (again.name, again.columns(None, None)) == ("loudness", {"loudness": pa.float32()})


def test_names_are_taken_once() -> None:
    with pytest.raises(ValueError, match="there is a task loudness already"):
        register(LOUDNESS)
    with pytest.raises(ValueError, match="speech: the columns text are those of transcribe"):
        register(Task(**{**vars(LOUDNESS), "name": "speech", "column_names": frozenset({"text"})}))

    class Clash(BaseModel):
        dtype: str = "x"

    clash = Task(**{**vars(LOUDNESS), "name": "clash", "column_names": frozenset(), "options": Clash})
    register(clash)
    try:
        with pytest.raises(ValueError, match="dtype is a field of both compute and clash_options"):
            job_spec("clash")
    finally:
        del TASKS["clash"]
