"""What is settled before the first step: the start, the features, and what is learned from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.annotate.checkpoints import read_checkpoint
from pipeline.engine.cluster import connect
from pipeline.errors import BrokenOffError, JobError, QualityError
from pipeline.storage import Storage, join, name_of, place_errors
from pipeline.training.batches.mel import COLOURS
from pipeline.training.examples.statistics import Statistics, statistics
from pipeline.training.feature_table.prepare import prepare
from pipeline.training.feature_table.spec import FeatureTableSpec
from pipeline.training.feature_table.table import FeatureTable
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
    tables = _Tables(spec, extractor, storage, say)
    trained = tables.of(spec.data.train, join(features, "train"), spec.augmentation.speeds)
    valid = tables.of(spec.data.valid, join(features, "valid"))
    recordings = [place for place in spec.augmentation.noise if place not in COLOURS]
    noise = tables.of(recordings, join(features, "noise"))
    labelled = label(spec, start, trained, valid, storage, extractor.frame_s)
    found = statistics(labelled.train, labelled.rows, extractor.frame_s, start.config, labelled.vocabulary)
    files = [uri for table in noise for uri in table.files]
    return Job(spec, storage, output, start, extractor, labelled, found, files)


def require_usable(job: Job) -> None:
    """Raises QualityError where too many clips cannot be used."""
    found, most = job.statistics, job.spec.data.max_unusable
    if found.unusable > most:
        raise QualityError(
            f"{found.unusable:.1%} of the clips cannot be used, more than --max-unusable {most:g}:\n"
            f"{_reasons(found)}"
        )


def _reasons(found: Statistics) -> str:
    return "\n".join(
        f"{count:,} {reason}{f' ({task})' if task else ''}" for (task, reason), count in found.skipped.items()
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


@dataclass(frozen=True)
class _Tables:
    """Makes or extends the feature tables of a run."""

    spec: FinetuneSpec
    extractor: SeamlessM4TFeatureExtractor
    storage: Storage
    say: Say

    def of(self, inputs: Sequence[str], place: str, speeds: Sequence[float] = (1.0,)) -> list[FeatureTable]:
        """One for each speed; none where there is no input.

        Other input has tables of other names, since a table keeps the clips of all input that it ever had.
        """
        if not inputs:
            return []
        named = sorted({self.storage.normalise(uri) for uri in inputs})
        asked = self._asked(inputs, f"{place}-{hashlib.sha256(json.dumps(named).encode()).hexdigest()[:8]}")
        return [self._table(one, name_of(place)) for one in asked.at_speeds(speeds)]

    def _table(self, asked: FeatureTableSpec, name: str) -> FeatureTable:
        place, speed = asked.table.output, asked.corpus.speed
        about = name if speed == 1 else f"{name} at speed {speed:g}"
        summary = prepare(asked, self.extractor, say=lambda line: self.say(f"{about}: {line}"))
        if not summary.complete:
            raise BrokenOffError(f"storage did not deliver all of {', '.join(asked.corpus.input)}")
        return FeatureTable(place, self.storage)

    def _asked(self, inputs: Sequence[str], place: str) -> FeatureTableSpec:
        data, cluster = self.spec.data, self.spec.cluster
        return FeatureTableSpec.model_validate(
            {
                "input": list(inputs),
                "output": place,
                "where": data.where,
                "channel": data.channel,
                "max_duration_s": data.max_duration_s,
                "allow_hosts": data.allow_hosts,
                "storage": data.storage,
                "featurize_actors": cluster.featurize_actors,
                "ray_address": cluster.ray_address,
            }
        )
