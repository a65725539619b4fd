"""One worker of a run, from what the driver hands it to the outcome. Nothing here knows Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule, fully_shard

from pipeline.node_files import CheckpointFiles
from pipeline.storage import Storage
from pipeline.table.lock import check_lock
from pipeline.training.batches.augment import Augmentation, Augmenter, Joining, NoiseTable
from pipeline.training.batches.cache import FeatureCache
from pipeline.training.batches.order import Order
from pipeline.training.batches.reader import Reader
from pipeline.training.examples.index import Index
from pipeline.training.examples.rows import Rows
from pipeline.training.group import Group
from pipeline.training.loop.course import Course, Feed, Outcome
from pipeline.training.loop.evaluate import Evaluator, ValidationSettings, summarise
from pipeline.training.loop.loop import Trainer
from pipeline.training.model.build import Start, build, build_masked
from pipeline.training.model.learner import Learner
from pipeline.training.model.masked import SpanMasks
from pipeline.training.optimiser.groups import Rates, frozen_names, make_optimiser
from pipeline.training.report.losses import clip_losses
from pipeline.training.report.watch import Watch
from pipeline.training.state.checkpoints import Checkpoints
from pipeline.training.state.weights import WeightsKeeper
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor


@dataclass(frozen=True)
class ModelParts:
    """What a learner is built from, on every worker and in the driver.

    Attributes:
        start: files of a checkpoint, or a configuration.
        heads: by task, the fields of its configuration; none for masked prediction.
        overrides: fields of the configuration to set.
        codebooks: of masked prediction: `codebook_size`, `codebook_dim`, `num_codebooks`, `seed`.
        crop_frames: see `MultiTask`.
    """

    start: CheckpointFiles | Mapping[str, Any]
    heads: Mapping[str, Mapping[str, Any]]
    overrides: Mapping[str, Any]
    seed: int
    new_heads: bool = False
    codebooks: Mapping[str, int] | None = None
    masks: SpanMasks = SpanMasks()  # noqa: RUF009 - it cannot be changed
    crop_frames: tuple[int, int] | None = None

    def build(self) -> tuple[Learner, frozenset[str]]:
        """The learner, and the names of its weights that start at random beside others that do not.

        Raises:
            JobError: see `model.build`.
        """
        torch.manual_seed(self.seed)
        start: Start = self.start.directory() if isinstance(self.start, CheckpointFiles) else self.start
        if self.codebooks is not None:
            built = build_masked(start, self.overrides, self.masks, **self.codebooks)
        else:
            built = build(
                start,
                self.heads,
                self.overrides,
                new_heads=self.new_heads,
                crop_frames=self.crop_frames,
            )
        return built.learner, built.new


@dataclass(frozen=True)
class DataParts:
    """Where batches come from.

    Attributes:
        train, valid: URIs of the indices; `valid` None: nothing to validate on.
        noise: files of a feature table of noise recordings.
        cache_bytes: of each node's disk.
        window_frames: see `Order`.
    """

    train: str
    valid: str | None
    budget: int
    augmentation: Augmentation
    noise: tuple[str, ...] = ()
    joining: Joining | None = None
    cache_bytes: int | None = None
    window_frames: int | None = None


@dataclass(frozen=True)
class Training:
    """All that a worker has to know of its run. Picklable.

    Attributes:
        lock: URI and token of the lock that the driver holds; None: nothing is locked.
        rates: of the optimiser.
        freeze, freeze_layers: see `frozen_names`.
        settings: by task, configuration and vocabulary of the result, which validation reads it with.
    """

    output: str
    storage: Storage
    lock: tuple[str, str] | None
    course: Course
    model: ModelParts
    data: DataParts
    rates: Rates
    extractor: SeamlessM4TFeatureExtractor
    settings: Mapping[str, CheckpointFiles]
    freeze: tuple[str, ...] = ()
    freeze_layers: int = 0
    ema_decay: float | None = None
    gradient_checkpointing: bool = False
    fsdp: bool = False


def train(training: Training, group: Group, tell: Callable[[str, Any], None]) -> Outcome:
    """Works as one worker of the group.

    Raises:
        JobError: the run cannot go on as it is told.
    """
    storage, course = training.storage, training.course
    model, keeper = _keeper(training, group)
    index = Index.load(training.data.train, storage)
    check = partial(check_lock, *training.lock, storage) if training.lock else lambda: None
    checkpoints = Checkpoints(training.output, storage, check)
    cut = training.data.budget, training.data.window_frames
    if begun := checkpoints.begun():
        cut = begun.token_budget, begun.window_frames
    order = Order(index.frames, index.file, cut[0], course.seed, cut[1])
    reader = reader_of(training, index, augmented=True)
    watch = Watch(training.output, storage, group.rank, training.rates.usual, tell)
    validate = _Validation(training, model, group, watch)
    outcome = Trainer(course, keeper, Feed(order, reader), checkpoints, validate, watch).run()
    watch.close()
    return outcome


def reader_of(training: Training, index: Index, *, augmented: bool) -> Reader:
    """What makes batches of an index."""
    cache = FeatureCache(training.storage, limit_bytes=training.data.cache_bytes)
    return Reader(index, cache, training.course.seed, _augmenter(training, cache) if augmented else None)


def _keeper(training: Training, group: Group) -> tuple[Learner, WeightsKeeper]:
    model, new = training.model.build()
    if training.gradient_checkpointing:
        model.encoder.gradient_checkpointing_enable()
    model.to(group.device)
    layers = model.encoder.encoder.layers
    if training.fsdp:
        for layer in layers:
            fully_shard(layer)
        fully_shard(model)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # losses are divided by what all workers count
                module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    named = dict(model.named_parameters())
    frozen = frozen_names(named, training.freeze, training.freeze_layers)
    optimiser = make_optimiser(named, len(layers), new, training.rates)
    return model, WeightsKeeper(model, optimiser, group, frozen=frozen, ema_decay=training.ema_decay)


def _augmenter(training: Training, cache: FeatureCache) -> Augmenter | None:
    data = training.data
    if data.augmentation == Augmentation() and not data.noise and data.joining is None:
        return None
    noise = NoiseTable(Rows.read(data.noise, training.storage), cache) if data.noise else None
    return Augmenter(data.augmentation, training.extractor, noise, data.joining)


class _Validation:
    """Measures a model on the validation clips, on all workers together."""

    def __init__(self, training: Training, model: Learner, group: Group, watch: Watch) -> None:
        self._training, self._model, self._group, self._watch = training, model, group, watch
        self._reader: Reader | None = None
        if training.data.valid is not None:
            index = Index.load(training.data.valid, training.storage)
            self._order = Order(index.frames, index.file, training.data.budget, 0)
            self._reader = reader_of(training, index, augmented=False)

    def __call__(self) -> dict[str, float]:
        if self._reader is None:
            return {}
        settings = ValidationSettings(
            self._training.settings, self._training.extractor.frame_s, self._training.storage
        )
        evaluator = Evaluator(self._model, settings)
        for batch in self._reader.stream(self._group.share(self._order.packs(0))):
            self._watch.validated(clip_losses(batch, evaluator.add(batch)))
        if self._training.fsdp and self._group.lacks_one(self._order.packs(0)):
            evaluator.go_through(self._reader.batch(self._order.packs(0)[0]))
        found = self._group.gather(evaluator.found)
        self._watch.unusable([clip_id for worker in found for clip_id in worker.unusable])
        return self._group.lead(lambda: summarise(found))
