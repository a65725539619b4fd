"""A model actor's own code without Ray: checkpoints of random weights, and tables of random features."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save

from bench.gpu.section import Section
from pipeline.annotate.heads import AnnotatorSettings
from pipeline.annotate.stage import Annotator
from pipeline.features.windows import WindowPlan
from pipeline.node_files import CheckpointFiles, digest_of
from pipeline.schema import feature_schema, output_schema
from pipeline.tasks import TASKS, columns_of
from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig

DEMO = Path(__file__).resolve().parents[2] / "demo/checkpoint"
LABELS: dict[str, dict[str, int]] = {
    "transcribe": {"vocab_size": 20},
    "classify": {"num_labels": 100},
    "diarize": {"num_labels": 4},
    "embed": {"num_labels": 10},
}
NOTHING = pa.schema([])


def make_checkpoints(section: Section, tasks: list[str]) -> dict[str, CheckpointFiles]:
    """One encoder, which the first brings along, and a head for each task."""
    made: dict[str, CheckpointFiles] = {}
    for task in tasks:
        torch.manual_seed(0)
        with torch.device(section.device):
            kind: Any = TASKS[task].model()
            model = kind(Wav2Vec2BertConfig(**section.fields, **LABELS[task])).to(section.dtype)
        state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
        if made:
            state = {name: tensor for name, tensor in state.items() if not name.startswith("wav2vec2_bert.")}
        with tempfile.TemporaryDirectory() as folder:
            model.config.save_pretrained(folder)
            SeamlessM4TFeatureExtractor().save_pretrained(folder)
            for name in ("vocab.json", "tokenizer_config.json"):
                shutil.copyfile(DEMO / name, Path(folder, name))
            files = {path.name: np.frombuffer(path.read_bytes(), np.uint8) for path in Path(folder).iterdir()}
        files["model.safetensors"] = np.frombuffer(save(state), np.uint8)
        made[task] = CheckpointFiles(task, digest_of(files), files)
    return made


def make_annotator(section: Section, made: dict[str, CheckpointFiles]) -> Annotator:
    tasks = {name: TASKS[name] for name in made}
    options: dict[str, Any] = {name: task.options() for name, task in tasks.items()}
    columns = columns_of(tasks, options, {name: files.config for name, files in made.items()})
    told = AnnotatorSettings(
        tasks,
        options,
        frame_s=0.02,
        dtype=str(section.dtype).removeprefix("torch."),
        device=section.device.type,
        threads=torch.get_num_threads(),
    )
    return Annotator([made], told, output_schema(NOTHING, columns))


def make_table(lengths: list[int], seed: int = 0) -> pa.Table:
    """Clips of so many frames, as the featurize stage hands them on in half precision."""
    random = np.random.default_rng(seed)
    plan = WindowPlan(2000, 200)
    rows = [
        {
            **{"clip_id": f"s#{number}", "shard": "s", "sample_rate": 16000, "channels": 1},
            "duration_s": 0.02 * length,
            "features": random.standard_normal((length, 160), np.float32).astype(np.float16).tobytes(),
            "frames": length,
            "num_valid": length,
            "windows": [asdict(window) for window in plan.over([(0, length)])],
        }
        for number, length in enumerate(lengths)
    ]
    return pa.Table.from_pylist(rows, schema=feature_schema(NOTHING))
