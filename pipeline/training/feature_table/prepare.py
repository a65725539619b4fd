"""Audio shards to a feature table, or the rows that it lacks: a run like any other, without models.

The jobs' own readers, featurizer, ledger and writers: each clip has one row, whatever was killed, and the
table grows with the corpus.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.audio.resampling import SAMPLE_RATE
from pipeline.engine.cluster import Resources, allocate_featurizers
from pipeline.engine.datasource import AudioShards
from pipeline.engine.graph import Featurize, Graph
from pipeline.engine.isolation import Starting
from pipeline.errors import JobError
from pipeline.features.rows import bytes_at
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.reports.summary import RunSummary
from pipeline.run import Run, Say, carry_out, storage_of
from pipeline.table.log.writer import Layout
from pipeline.table.scan import choose_table
from pipeline.training.feature_table.schema import FEATURES
from pipeline.training.feature_table.spec import FeatureTableSpec
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor


def made_by(extractor: SeamlessM4TFeatureExtractor) -> dict[str, int]:
    """The settings of an extractor that decide the features."""
    return {name: getattr(extractor, name) for name in ("num_mel_bins", "sampling_rate", "stride")}


def prepare(
    spec: FeatureTableSpec, extractor: SeamlessM4TFeatureExtractor, *, say: Say = print
) -> RunSummary:
    """Makes the rows that the table does not hold yet.

    Raises:
        JobError: bad input, or a table of something else in the place, before any work starts; or the run
            broke off, and the same call goes on.
    """
    started = time.monotonic()
    if extractor.sampling_rate != SAMPLE_RATE:
        raise JobError(
            f"the feature extractor is made for audio at {extractor.sampling_rate:,} Hz, not {SAMPLE_RATE:,}."
        )
    storage = storage_of(spec)
    table, other = choose_table(spec, storage)
    table = other or table  # nothing goes beside a table of annotations: the scan refuses it
    (made,) = spec.makes
    identity = {"models": {made: made_by(extractor)}, **spec.output_settings()}
    return carry_out(_FeatureRun(spec, storage, table, None, identity, {}, extractor), say, started)


@dataclass(frozen=True)
class _FeatureRun(Run):
    spec: FeatureTableSpec
    extractor: SeamlessM4TFeatureExtractor

    # Read at random, a row group at a time: fp16 noise hardly packs, and no value comes twice.
    layout: ClassVar[Layout] = Layout(group_rows=256, compression="none", dictionary=False)
    most_rows_per_file: ClassVar[int] = 2_048

    @property
    def models(self) -> Mapping[str, Mapping[str, Any]]:
        models: Mapping[str, Mapping[str, Any]] = self.identity["models"]
        return models

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return FEATURES

    def resources(self) -> Resources:
        return allocate_featurizers(self.spec.compute)

    def graph(
        self, source: AudioShards, passthrough: pa.Schema, schema: pa.Schema, resources: Resources
    ) -> Graph:
        corpus = self.spec.corpus
        options = FeatureOptions(
            channel=corpus.channel,
            max_duration_s=corpus.max_duration_s,
            half=True,
            speed=corpus.speed,
            statistics=True,
        )
        # One window holds the longest clip, so that none is streamed, and is as the encoder is to see it.
        longest = math.ceil(corpus.max_duration_s / min(1.0, corpus.speed) / self.extractor.frame_s) + 1
        make = partial(Featurizer, self.extractor, self.storage, passthrough, WindowPlan(longest, 0), options)
        return Graph(source, partial(FeatureRows, make, schema, corpus.speed), limit=corpus.limit)


class FeatureRows:
    """A featurizer's tables as rows of the feature table.

    Args:
        make: makes the featurizer, which keeps the statistics of the normalisation, in float16.
        schema: of the rows.
    """

    def __init__(self, make: Callable[[], Featurize], schema: pa.Schema, speed: float) -> None:
        self._featurizer, self._schema, self._speed = make(), schema, speed

    def __call__(self, clips: pa.Table, starting: Starting | None) -> Iterator[pa.Table]:
        for table in self._featurizer(clips, starting):
            yield self._rows(table)

    def _rows(self, table: pa.Table) -> pa.Table:
        rows = table.num_rows
        own = {
            "speed": pa.array(np.full(rows, self._speed, np.float32)),
            "frames": table["num_valid"],
            "features": pa.array(_whole_frames(table), pa.large_binary()),
            "encoder_s": pa.nulls(rows, pa.float32()),
        }
        columns = [own[name] if name in own else table[name] for name in self._schema.names]
        return pa.table(columns, schema=self._schema)


def _whole_frames(table: pa.Table) -> Iterator[memoryview | None]:
    """The features of each clip without a frame that the audio fills only in part."""
    lengths = zip(table["frames"].to_pylist(), table["num_valid"].to_pylist(), strict=True)
    for row, (frames, whole) in enumerate(lengths):
        features = bytes_at(table["features"], row)
        yield None if features is None else memoryview(features.slice(0, features.size // frames * whole))
