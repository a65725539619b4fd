"""The actor code when a pass fails: for want of memory, of range, of a device."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import DeviceLostError
from pipeline.tasks import TASKS, register
from pipeline.tasks.base import ClipFrames, HeadParts, PackedWindow, Task, Values
from tests.conftest import ROOT
from tests.pipeline.annotate.features import annotator, feature_table, noise
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.model import Encoding, Wav2Vec2BertModel

DEMO = ROOT / "demo"
ILLEGAL = "CUDA error: an illegal memory access was encountered"


class Activations:
    """What a pass computes and only it holds."""


@dataclass
class Trouble:
    """What goes wrong, and what was seen. `at`: in "outputs", "add" or "finish"; `when`: for these frames."""

    at: str = "outputs"
    when: Callable[[int], bool] = lambda frames: False
    problem: Callable[[], Exception] = MemoryError
    passes: list[int] = field(default_factory=list)
    held: list[weakref.ref[Activations]] = field(default_factory=list)

    def meet(self, at: str, frames: int) -> None:
        if at == self.at and self.when(frames):
            raise self.problem()


@dataclass
class TroubledHead:
    """The bare encoder, and trouble."""

    model: Wav2Vec2BertModel
    trouble: Trouble

    def outputs(self, encoding: Encoding, windows: Sequence[PackedWindow]) -> Sequence[Any]:
        assert all(one() is None for one in self.trouble.held), "a failed pass is still in memory"
        activations = Activations()
        self.trouble.held.append(weakref.ref(activations))
        frames = sum(window.window.frames for window in windows)
        self.trouble.passes.append(frames)
        self.trouble.meet("outputs", frames)
        return [window.window.frames for window in windows]

    def accumulator(self, clip: ClipFrames) -> Sum:
        return Sum(self.trouble)


@dataclass
class Sum:
    trouble: Trouble
    frames: int = 0

    def add(self, window: Any, outputs: Mapping[str, Any]) -> None:
        self.trouble.meet("add", outputs["trouble"])
        self.frames += outputs["trouble"]

    def finish(self) -> Values:
        self.trouble.meet("finish", self.frames)
        return {"heard": self.frames}


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    told = Trouble()

    def head(parts: HeadParts) -> TroubledHead:
        return TroubledHead(parts.model, told)

    register(
        Task(
            name="trouble",
            does="meets trouble",
            about="Meet trouble.",
            makes="trouble",
            model=lambda: Wav2Vec2BertModel,
            columns=lambda options, config: {"heard": pa.int32()},
            column_names=frozenset({"heard"}),
            head=head,
        )
    )
    yield told
    del TASKS["trouble"]


def table_of(*seconds: float) -> pa.Table:
    return feature_table(SeamlessM4TFeatureExtractor(), [noise(one) for one in seconds])


def half(table: pa.Table) -> pa.Table:
    """The features as the featurize stage keeps them for models in half precision."""
    index = table.schema.get_field_index("features")
    floats = [np.frombuffer(row, np.float32) for row in table["features"].to_pylist()]
    column = pa.array([row.astype(np.float16).tobytes() for row in floats], pa.large_binary())
    return table.set_column(index, table.schema.field(index), column)


def codes(table: pa.Table) -> list[str | None]:
    return [error and error["code"] for error in table["error"].to_pylist()]


@pytest.mark.slow
def test_a_pass_too_large_is_freed_and_not_tried_again(trouble: Trouble) -> None:
    stage = annotator({"trouble": DEMO / "checkpoint"}, token_budget=1000)
    trouble.when = lambda frames: frames > 300
    trouble.problem = lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    table = table_of(*[2.0] * 16)  # of 99 frames each
    found = stage(table)
    assert found["heard"].to_pylist() == [99] * 16
    assert [frames for frames in trouble.passes if frames > 300] == [990, 495]
    trouble.passes.clear()
    assert stage(table)["heard"].to_pylist() == [99] * 16
    assert max(trouble.passes) <= 300


@pytest.mark.slow
def test_a_clip_too_large_alone(trouble: Trouble) -> None:
    stage = annotator({"trouble": DEMO / "checkpoint"})
    trouble.when = lambda frames: frames > 300
    for text in (
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "std::bad_alloc",
    ):
        trouble.problem = lambda text=text: RuntimeError(text)  # type: ignore[misc]
        found = stage(table_of(2, 7, 3))
        assert codes(found) == [None, "out_of_memory", None]
        assert found["heard"].to_pylist() == [99, None, 149]
        assert found["error"][1].as_py()["message"] == f"RuntimeError: {text}"


@pytest.mark.slow
def test_another_failure_leaves_the_budget(trouble: Trouble) -> None:
    stage = annotator({"trouble": DEMO / "checkpoint"})
    trouble.when, trouble.problem = (
        (lambda frames: frames > 300),
        lambda: ValueError("no allocation of turns"),
    )
    assert codes(stage(table_of(2, 7, 3))) == [None, "model_failed", None]
    trouble.when, trouble.passes = (lambda frames: False), []
    stage(table_of(2, 7, 3))
    assert trouble.passes == [99 + 149 + 349]


@pytest.mark.parametrize("at", ["outputs", "add", "finish"])
def test_a_lost_device_is_no_clips_fault(trouble: Trouble, at: str) -> None:
    stage = annotator({"trouble": DEMO / "checkpoint"})
    trouble.at, trouble.when = at, lambda frames: True
    trouble.problem = lambda: torch.AcceleratorError(ILLEGAL)
    with pytest.raises(DeviceLostError, match=f"AcceleratorError: {ILLEGAL}"):
        stage(table_of(2, 3))
    assert len(trouble.passes) == 1


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's classifier, whose weights fit half precision and whose logits mostly do not."""
    model = tmp_path_factory.mktemp("loud") / "model"
    shutil.copytree(DEMO / "classify", model)
    weights = {name: tensor.float() for name, tensor in load_file(model / "model.safetensors").items()}
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name] * (60_000 / weights["classifier.weight"].abs().max())
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    return model


def test_what_overflows_half_precision_is_tried_in_float32(loud: Path) -> None:
    stage = annotator({"classify": loud}, dtype="float16")
    table = half(table_of(1, 2, 3))
    model = next(iter(stage._heads[0].values())).model
    before = {name: (value.dtype, value.data_ptr()) for name, value in model.state_dict().items()}

    found = stage(table)
    assert codes(found) == [None] * 3
    assert [row[0]["score"] for row in found["labels"].to_pylist()] == [1.0] * 3
    expected = annotator({"classify": DEMO / "classify"})(table_of(1, 2, 3))
    assert found["label"].to_pylist() == expected["label"].to_pylist()
    assert {name: (value.dtype, value.data_ptr()) for name, value in model.state_dict().items()} == before
    assert stage(table)["label"].to_pylist() == found["label"].to_pylist()


def test_what_is_not_finite_in_float32_either_is_an_error(trouble: Trouble) -> None:
    trouble.at, trouble.when = "add", lambda frames: frames > 100
    trouble.problem = lambda: FloatingPointError("the model gave numbers that are not finite")
    for dtype, passes in (("float16", 2), ("float32", 1)):
        trouble.passes.clear()
        stage = annotator({"trouble": DEMO / "checkpoint"}, dtype=dtype)
        table = table_of(2, 3)
        found = stage(half(table) if dtype == "float16" else table)
        assert codes(found) == [None, "model_failed"]
        assert len(trouble.passes) == passes
