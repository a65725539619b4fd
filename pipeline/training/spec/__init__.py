"""What a fine-tuning job is told. One declaration is the command line, the YAML file and the environment."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import model_validator

from pipeline.spec.flat import FlatSpec
from pipeline.training.spec.learning import LEARNABLE, METRICS, AugmentationPart, ModelPart, OptimiserPart
from pipeline.training.spec.running import ClusterPart, DataPart, RunPart

# What a run may have otherwise when it goes on: where and how it is computed, kept and shown.
_FREE = {
    "run": {"output", "features", "overwrite", "keep_best", "keep_last", "plan", "patience", "max_failures"}
    | {"save_steps", "max_skipped_batches"},
    "data": {"storage", "allow_hosts", "max_unusable"},
    "cluster": {"num_workers", "num_gpus_per_worker", "threads_per_worker", "parallel", "ray_address"}
    | {"featurize_actors", "gradient_checkpointing", "features_cache_gb"},
}


class FinetuneSpec(FlatSpec):
    """Fine-tune Wav2Vec2-BERT: labelled audio shards and a checkpoint in, a better one of each task out."""

    data: DataPart
    run: RunPart
    model: ModelPart
    optimiser: OptimiserPart
    augmentation: AugmentationPart
    cluster: ClusterPart

    @property
    def tasks(self) -> list[str]:
        """The annotations that are learned, in the order in which they were asked for."""
        return self.model.task

    @property
    def _learned(self) -> list[str]:
        return self.tasks or [self.model.objective]

    @property
    def metric(self) -> str | None:
        """What says which checkpoint is best, as "task/metric": of the first task, where none is named."""
        asked = self.run.metric
        return (
            asked if asked is None or "/" in asked else f"{(self.tasks or [self.model.objective])[0]}/{asked}"
        )

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide what a step computes, by name: never a credential."""
        free = set[str]().union(*_FREE.values())
        return {name: value for name, value in self.public().items() if name not in free}

    @property
    def digest(self) -> str:
        """Of all settings that decide what a step computes."""
        held = self.model_dump(mode="json", exclude=_FREE)
        return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if strange := sorted(set(self.tasks) - {*LEARNABLE}):
            raise ValueError(f"task: {strange[0]!r} cannot be learned; there are {', '.join(LEARNABLE)}")
        if "diarize" in self.tasks and not self.data.rttm:
            raise ValueError("rttm is missing: diarization is learned from RTTM files (--rttm)")
        if self.augmentation.concat_prob and self.tasks != ["transcribe"]:
            raise ValueError("concat_prob: clips are joined for transcribe alone")
        known = [f"{task}/{name}" for task in self._learned for name in (*METRICS[task], "loss")]
        if (asked := self.metric) is not None and asked not in known:
            raise ValueError(f"metric: {asked!r} is not measured; there are {', '.join(known)}")
        return self
