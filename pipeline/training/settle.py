"""What is settled before the first step: the start, the features, and what is learned from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.annotate.checkpoints import read_checkpoint
from pipeline.engine.cluster import connect
from pipeline.errors import JobError, QualityError
from pipeline.reports.summary import format_hours
from pipeline.storage import Storage, join, place_errors
from pipeline.training.batches.mel import COLOURS
from pipeline.training.examples.statistics import Statistics, statistics
from pipeline.training.feature_table.tables import FeatureTables
from pipeline.training.labelling import Labelled, Start, label
from pipeline.training.loop.worker import ModelParts
from pipeline.training.model.build import config_of
from pipeline.training.model.masked import SpanMasks
from pipeline.training.report.scores import require_packages
from pipeline.training.spec import FinetuneSpec
from pipeline.training.spec.learning import as_range
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """All that is settled before the first step.

    Attributes:
        output: of the run.
        noise: files of the table of noise recordings.
    """

    spec: FinetuneSpec
    storage: Storage
    output: str
    start: Start
    extractor: SeamlessM4TFeatureExtractor
    labelled: Labelled
    statistics: Statistics
    noise: Sequence[str]

    @property
    def identity(self) -> str:
        """Digest of all that decides what a step computes."""
        labelled, files = self.labelled, self.start.files
        facts = [
            self.spec.digest,
            self.start.config.to_dict() if files is None else files.digest,
            labelled.train.index.digest,
            None if labelled.valid is None else labelled.valid.index.digest,
            labelled.heads,
        ]
        return f"sha256:{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}"

    @property
    def validation(self) -> str | None:
        """The clips to validate on, for a person; None: there are none."""
        if self.labelled.valid is None:
            return None
        index = self.labelled.valid.index
        hours = float(index.frames.sum()) * self.extractor.frame_s / 3600
        return f"{len(index):,} examples, {format_hours(hours)}: {self.labelled.validation}"

    @property
    def model(self) -> ModelParts:
        spec, asked = self.spec, self.spec.model
        codebooks = {"codebook_size": asked.codebook_size, "codebook_dim": asked.codebook_dim}
        codebooks |= {"num_codebooks": asked.num_codebooks, "seed": spec.run.seed}
        return ModelParts(
            start=self.start.files or self.start.config.to_dict(),
            heads=self.labelled.heads,
            overrides=asked.overrides,
            seed=spec.run.seed,
            new_heads=asked.new_heads,
            codebooks=codebooks if asked.masked else None,
            masks=SpanMasks(asked.mask_prob, asked.mask_length, asked.min_masks),
            crop_frames=self._frames(spec.augmentation.crop_s),
        )

    def _frames(self, seconds: str | None) -> tuple[int, int] | None:
        if seconds is None:
            return None
        low, high = (max(1, round(number / self.extractor.frame_s)) for number in as_range(seconds))
        return low, high


def settle(spec: FinetuneSpec, say: Say) -> Job:
    """Prepares the features, and finds out what is learned from them: all but the training itself.

    Raises:
        JobError: bad configuration.
    """
    storage, output = places_of(spec)
    require_packages(spec.tasks)
    start, extractor = _start(spec, storage)
    connect(spec.cluster.ray_address)
    features = (
        storage.normalise(spec.run.features).rstrip("/") if spec.run.features else join(output, "features")
    )
    tables = FeatureTables(spec, extractor, storage, features, say)
    train = tables.files("train", spec.data.train, spec.augmentation.speeds)
    valid = tables.files("valid", spec.data.valid)
    noise = tables.files("noise", [place for place in spec.augmentation.noise if place not in COLOURS])
    labelled = label(spec, start, train, valid, storage, extractor.frame_s)
    found = statistics(labelled.train, labelled.rows, extractor.frame_s, start.config, labelled.vocabulary)
    return Job(spec, storage, output, start, extractor, labelled, found, noise)


def require_usable(job: Job) -> None:
    """Raises QualityError where too many clips cannot be used."""
    found, most = job.statistics, job.spec.data.max_unusable
    if found.unusable > most:
        raise QualityError(
            f"{found.unusable:.1%} of the clips cannot be used, more than --max-unusable {most:g}:\n"
            + "\n".join(found.reasons)
        )


def places_of(spec: FinetuneSpec) -> tuple[Storage, str]:
    """The storage of a run, and its output."""
    storage = Storage(spec.data.storage.with_environment(), frozenset(spec.data.allow_hosts))
    output = storage.normalise(spec.run.output).rstrip("/")
    with place_errors("--output", spec.run.output):
        if storage.is_file(output):
            raise JobError(f"--output {spec.run.output} is a file; name a directory.")
    return storage, output


def _start(spec: FinetuneSpec, storage: Storage) -> tuple[Start, SeamlessM4TFeatureExtractor]:
    asked = spec.model
    if asked.model is not None:
        files = read_checkpoint(asked.model, "--model", storage)
        return Start(config_of(files.directory(), asked.overrides), files), files.extractor
    assert asked.architecture is not None  # the spec saw to that
    with place_errors("--model-config", asked.architecture):
        data = storage.read_bytes(storage.normalise(asked.architecture))
    try:
        content = json.loads(data)
    except ValueError as problem:
        raise JobError(f"--model-config {asked.architecture} is not JSON ({problem})") from problem
    if not isinstance(content, dict):
        raise JobError(f"--model-config {asked.architecture} must hold a JSON object, such as a config.json")
    return Start(config_of(content, asked.overrides), None), SeamlessM4TFeatureExtractor()
