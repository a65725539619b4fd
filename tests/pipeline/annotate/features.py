"""Tables of features, as the featurize stage hands them on, and the actor code that takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.annotate.checkpoints import configs_of, extractor_of, read_backbones
from pipeline.annotate.heads import AnnotatorSettings
from pipeline.annotate.stage import Annotator
from pipeline.features.windows import WindowPlan
from pipeline.schema import feature_schema, output_schema
from pipeline.storage import Storage, StorageOptions
from pipeline.tasks import TASKS, columns_of
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

STORAGE = Storage(StorageOptions())
NOTHING = pa.schema([])


def noise(seconds: float, seed: int = 0) -> npt.NDArray[np.float32]:
    """Bursts of noise, each of its own loudness."""
    random = np.random.default_rng(seed)
    samples = random.standard_normal(round(16000 * seconds)) * 0.1
    return (samples * random.uniform(0.1, 2, len(samples) // 800 + 1).repeat(800)[: len(samples)]).astype(
        np.float32
    )


def feature_table(
    extractor: SeamlessM4TFeatureExtractor,
    clips: Sequence[npt.NDArray[np.float32]],
    plan: WindowPlan | None = None,
) -> pa.Table:
    """A row for each clip of samples at 16 kHz."""
    plan = plan or WindowPlan(2000, 200)
    rows = []
    for number, samples in enumerate(clips):
        features = extractor.extract(samples, keep_partial=True)
        rows.append(
            {
                "clip_id": f"s#{number}",
                "shard": "s",
                "duration_s": len(samples) / 16000,
                "sample_rate": 16000,
                "channels": 1,
                "features": features.astype(np.float32).tobytes(),
                "frames": len(features),
                "num_valid": extractor.num_frames(len(samples)),
                "windows": [asdict(window) for window in plan.over([(0, len(features))])],
            }
        )
    return pa.Table.from_pylist(rows, schema=feature_schema(NOTHING))


def annotator(models: dict[str, Path], **settings: Any) -> Annotator:
    """The actor code with these checkpoints, on this thread."""
    places = {task: str(model) for task, model in models.items()}
    backbones = read_backbones(places, {task: f"--{task}" for task in models}, TASKS, STORAGE)
    tasks = {name: task for name, task in TASKS.items() if name in models}
    options = {name: task.options() for name, task in tasks.items()} | settings.pop("options", {})
    columns = columns_of(tasks, options, configs_of(backbones))
    told = AnnotatorSettings(tasks, options, extractor_of(backbones).frame_s, **settings)
    return Annotator([held.checkpoints for held in backbones], told, output_schema(NOTHING, columns))
