"""The demo's checkpoints as one model with four heads, and batches of its corpus."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.annotate.checkpoints import extractor_of, read_backbones
from pipeline.node_files import CheckpointFiles
from pipeline.storage import Storage, StorageOptions
from pipeline.tasks import TASKS
from pipeline.training.batches.batch import Batch, Pack
from pipeline.training.loop.evaluate import ValidationSettings
from pipeline.training.model.learner import Learner
from pipeline.training.model.losses import TaskLoss
from tests.conftest import ROOT
from w2vbert import SeamlessM4TFeatureExtractor
from w2vbert.heads.losses import ctc_loss, frame_loss
from w2vbert.heads.task import TaskModel
from w2vbert.model import Encoding
from w2vbert.packing import Packed

DEMO = {
    "transcribe": ROOT / "demo/checkpoint",
    "classify": ROOT / "demo/classify",
    "diarize": ROOT / "demo/diarize",
    "embed": ROOT / "demo/embed",
}
STORAGE = Storage(StorageOptions())
Targets = Mapping[str, Sequence[Tensor | None]]


class FourHeads(Learner):
    """Task models around one encoder, each with its published loss, clip by clip."""

    def __init__(self, models: Mapping[str, TaskModel]) -> None:
        super().__init__(next(iter(models.values())).wav2vec2_bert)
        self.models = nn.ModuleDict(models)
        self.encodings = 0

    @property
    def results(self) -> Mapping[str, Any]:
        return dict(self.models.items())

    def forward(
        self, batch: Batch, *, see: Callable[[Encoding], None] = lambda encoding: None
    ) -> dict[str, TaskLoss]:
        assert not self.training
        assert not torch.is_grad_enabled()
        states = any(model.needs_hidden_states for model in self.results.values())
        encoding = self.encoder.encode(batch.features, output_hidden_states=states)
        self.encodings += 1
        see(encoding)
        return {task: self._loss(task, encoding, batch.targets.get(task, ())) for task in self.results}

    def counts(self, batch: Batch) -> dict[str, float]:
        raise NotImplementedError  # nothing is learned

    def _loss(self, task: str, encoding: Encoding, targets: Sequence[Tensor | None]) -> TaskLoss:
        losses = [
            torch.nan if target is None else float(self._of_clip(task, encoding, row, target))
            for row, target in enumerate(targets)
        ]
        clips = torch.tensor(losses)
        return TaskLoss(clips.nansum(), float(clips.isfinite().sum()), clips, {"seen": float(len(losses))})

    def _of_clip(self, task: str, encoding: Encoding, row: int, target: Tensor) -> Tensor:
        model = self.results[task]
        if task == "classify":
            mean = model.project(encoding).split()[row].mean(dim=0)
            return F.cross_entropy(model.classifier(mean)[None], target[None])
        if task == "embed":
            pooling = model.pooling()
            pooling.add(model.project(encoding).split()[row])
            return model.objective(pooling.finish().logits[None], target[None])
        logits = Packed.from_sequences([model.frame_logits(encoding).split()[row]])
        if task == "diarize":
            return frame_loss(logits, F.pad(target, (0, model.num_labels - target.shape[1]))[None], None)
        return ctc_loss(logits, target[None], blank=model.blank, reduction="mean", zero_infinity=False)


def demo_files() -> tuple[dict[str, CheckpointFiles], SeamlessM4TFeatureExtractor]:
    places = {task: str(place) for task, place in DEMO.items()}
    (backbone,) = read_backbones(places, {task: f"--{task}" for task in DEMO}, TASKS, STORAGE)
    return backbone.checkpoints, extractor_of([backbone])


def demo_model(checkpoints: Mapping[str, CheckpointFiles]) -> FourHeads:
    models: dict[str, TaskModel] = {}
    encoder = None
    for task, files in checkpoints.items():
        kind: Any = TASKS[task].model()
        models[task] = kind.from_pretrained(files.directory(), backbone=encoder)
        encoder = encoder or models[task].base_model
    return FourHeads(models).eval()


def settings_of(checkpoints: Mapping[str, CheckpointFiles]) -> ValidationSettings:
    return ValidationSettings(checkpoints, 0.02, STORAGE)


def demo_clips() -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Text and samples of the short clips of a shard, as many samples as fill the last frame."""
    for row in pq.read_table(ROOT / "demo/corpus/parquet").to_pylist():
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        assert rate == 16000
        if len(samples) < 50_000:
            windows = (len(samples) - 400) // 160 + 1  # of 25 ms, one every 10 ms; a frame is two of them
            yield row["text"], samples[: (windows // 2 * 2 - 1) * 160 + 400]


def batch_of(features: Sequence[npt.NDArray[np.float32]], targets: Targets, first: int = 0) -> Batch:
    """Clips c0, c1, …, beginning with `first`."""
    packed = Packed.from_sequences([torch.from_numpy(clip) for clip in features])
    ids = [f"c{first + number}" for number in range(len(features))]
    pack = Pack(0, 0, np.arange(first, first + len(features)))
    return Batch(pack, 0, ids, [1.0] * len(features), packed, targets)
