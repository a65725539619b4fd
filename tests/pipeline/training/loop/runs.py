"""Small runs without Ray: a feature table, a tiny encoder, and what came of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from pipeline.storage import Storage
from pipeline.training.batches.augment import Augmentation
from pipeline.training.batches.batch import Batch
from pipeline.training.batches.order import Order
from pipeline.training.examples.building import Limits, build_index
from pipeline.training.examples.index import Index
from pipeline.training.examples.labels import Labeller
from pipeline.training.examples.labels.classes import Classify
from pipeline.training.examples.labels.transcribe import Transcribe
from pipeline.training.examples.text import TextSettings
from pipeline.training.examples.vocabulary import Vocabulary, count_characters
from pipeline.training.group import Group
from pipeline.training.loop.course import Course, Outcome
from pipeline.training.loop.worker import DataParts, ModelParts, Training, train
from pipeline.training.model.learner import Learner
from pipeline.training.model.losses import TaskLoss
from pipeline.training.optimiser.groups import Rates
from pipeline.training.optimiser.schedule import Schedule
from pipeline.training.publish import settings_of
from pipeline.training.report.losses import merge
from pipeline.training.report.watch import PARTS, STEPPED
from pipeline.training.state.checkpoints import Checkpoints, Kept, Snapshot, Weights
from tests.pipeline.training.tables import STORAGE, clip, extractor, rows_of
from w2vbert.config import Wav2Vec2BertConfig

CONFIG: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "output_hidden_size": 16,
    "conv_depthwise_kernel_size": 5,
    "classifier_proj_size": 7,
    "mask_time_length": 3,
    "mask_time_prob": 0.2,
    "mask_feature_length": 10,
    "mask_feature_prob": 0.1,
    "layerdrop": 0.3,
    "initializer_range": 0.2,
}
"""The published dropouts are on."""
LENGTHS = (40, 41, 42, 60, 61, 62, 63, 90, 91, 25, 26, 110)
BUDGET = 140
LABELS = ("dog", "cat", "owl")


def examples(lengths: Sequence[int], prefix: str) -> list[dict[str, Any]]:
    """Rows of a feature table, with a text and a label."""
    rng = np.random.default_rng(len(lengths))
    return [
        clip(
            f"{prefix}{number:02}",
            frames,
            ref_text="".join(rng.choice([*"abcd"], rng.integers(2, 8))),
            ref_label=str(rng.choice(LABELS)),
        )
        for number, frames in enumerate(lengths)
    ]


def training_of(
    folder: Path,
    lengths: Sequence[int] = LENGTHS,
    fields: Mapping[str, Any] = CONFIG,
    ema_decay: float | None = None,
    broken: Collection[str] = (),
    **course: Any,
) -> Training:
    """A run that transcribes and classifies, with its data in the folder.

    Args:
        fields: of the configuration.
        broken: clips with a feature that is not a number.
        course: fields of `Course`.
    """
    config = Wav2Vec2BertConfig(**fields)
    vocabulary = Vocabulary.made(count_characters(["abcd"]), 1)
    tokenizer = vocabulary.tokenizer()
    labels: dict[str, Labeller] = {
        "transcribe": Transcribe("text", TextSettings(), tokenizer, config),
        "classify": Classify("label", LABELS),
    }
    for part, rows in (("train", examples(lengths, "t")), ("valid", examples(lengths[:5], "v"))):
        for row in rows:
            if row["clip_id"] in broken:
                row["features"] = np.float16(np.nan).tobytes() + row["features"][2:]
        built = build_index(rows_of(folder / part, rows, "text", "label"), labels, Limits())
        assert len(built.index) == len(rows)
        built.index.save(str(folder / f"{part}.arrow"), STORAGE)
    heads: dict[str, dict[str, Any]] = {
        "transcribe": {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id},
        "classify": {"id2label": dict(enumerate(LABELS))},
    }
    model = ModelParts(config.to_dict(), heads, {}, seed=5)
    told = Course(
        seed=11,
        identity="this run",
        weights={"transcribe": 1.0, "classify": 0.5},
        schedule=Schedule("tri_stage", 1),
        kept=Kept(metric="transcribe/loss"),
        packs_per_step=2,
        layers=config.num_hidden_layers,
        layerdrop=config.layerdrop,
        eval_steps=7,
        max_steps=20,
    )
    return Training(
        output=str(folder / "out"),
        storage=STORAGE,
        lock=None,
        course=replace(told, **course),
        model=model,
        data=DataParts(
            str(folder / "train.arrow"), str(folder / "valid.arrow"), BUDGET, Augmentation(gain_db=6)
        ),
        rates=Rates(1e-4, 1e-4),
        extractor=extractor(),
        settings=settings_of(model.build()[0], extractor(), tokenizer),
        ema_decay=ema_decay,
    )


def index_of(training: Training) -> Index:
    return Index.load(training.data.train, training.storage)


def order_of(training: Training) -> Order:
    index = index_of(training)
    return Order(index.frames, index.file, training.data.budget, training.course.seed)


class KilledError(BaseException):
    """A process that is killed cleans nothing up."""


def run(training: Training, *, kill_at: int | None = None) -> Outcome:
    """As one worker, in this process; killed after a step, before it is anywhere."""

    def tell(kind: str, news: Any) -> None:
        if kind == STEPPED and news.step == kill_at:
            raise KilledError

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with another number sums are rounded otherwise
    try:
        return train(training, Group(), tell)
    finally:
        torch.set_num_threads(threads)


def run_on(workers: int, trainings: Sequence[Training], folder: Path) -> None:
    """On as many processes, joined by gloo, one after another."""
    spawn(_work, (workers, trainings, str(folder / "store")), nprocs=workers)


def _work(rank: int, workers: int, trainings: Sequence[Training], store: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=workers)
    for training in trainings:
        train(training, Group.current(torch.device("cpu")), lambda kind, news: None)
    distributed.destroy_process_group()


def snapshot_of(training: Training, step: int | None = None) -> Snapshot:
    """The newest checkpoint, or that of a step."""
    checkpoints = Checkpoints(training.output, training.storage)
    newest = checkpoints.newest()
    assert newest is not None
    return checkpoints.load(newest if step is None else step)


def weights_of(training: Training, step: int | None = None) -> Weights:
    return snapshot_of(training, step).weights


def events_of(training: Training, kind: str) -> list[dict[str, Any]]:
    lines = Path(training.output, "events.jsonl").read_text("utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def metrics_of(training: Training) -> list[dict[str, float]]:
    """What each validation found."""
    return snapshot_of(training).progress.measured


def losses_of(training: Training) -> list[dict[str, Any]]:
    """The rows of `losses.parquet`."""
    path = Path(training.output, "losses.parquet")
    merge(f"{training.output}/{PARTS}", str(path), training.storage)
    return list(pq.read_table(path).to_pylist())


def clips_of(training: Training, split: str = "train") -> list[tuple[int, list[str]]]:
    """What was learned from in each step, as often as it was."""
    found: dict[int, list[str]] = {}
    for row in losses_of(training):
        if row["split"] == split and row["task"] == "transcribe":
            found.setdefault(row["step"], []).append(row["clip_id"])
    return [(step, sorted(ids)) for step, ids in sorted(found.items())]


def distance(found: Weights, expected: Weights) -> float:
    """The norm of the difference of all weights by their norm."""
    assert found.keys() == expected.keys()
    off = torch.cat([(found[name] - weight).flatten() for name, weight in expected.items()])
    return float(off.norm() / torch.cat([weight.flatten() for weight in expected.values()]).norm())


@dataclass(frozen=True)
class FailingStorage(Storage):
    """Storage that a run dies on: at the first file that ends so, which is not written."""

    dies_at: str = ""

    def write_bytes(self, uri: str, data: bytes, *, sync: bool = True) -> None:
        if self.dies_at and uri.endswith(self.dies_at):
            raise KilledError
        super().write_bytes(uri, data, sync=sync)


@dataclass(frozen=True)
class Poisoned(ModelParts):
    """A model whose loss of batches with certain clips is not finite, or only its gradient."""

    clip_ids: frozenset[str] = frozenset()
    gradient: bool = False

    def build(self) -> tuple[Learner, frozenset[str]]:
        learner, new = super().build()

        def poison(
            module: Learner, given: tuple[Batch, ...], losses: Mapping[str, TaskLoss]
        ) -> dict[str, TaskLoss]:
            if not module.training or self.clip_ids.isdisjoint(given[0].clip_ids):
                return dict(losses)
            if not self.gradient:
                return {task: replace(loss, total=loss.total * torch.nan) for task, loss in losses.items()}
            for loss in losses.values():
                loss.total.register_hook(lambda gradient: gradient * torch.inf)
            return dict(losses)

        learner.register_forward_hook(poison)
        return learner, new


def poisoned(training: Training, *clip_ids: str, gradient: bool = False) -> Training:
    """The run with such a model."""
    parts = {field.name: getattr(training.model, field.name) for field in dataclasses.fields(ModelParts)}
    model = Poisoned(**parts, clip_ids=frozenset(clip_ids), gradient=gradient)
    return replace(training, model=model)
