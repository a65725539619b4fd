"""From checkpoints to the heads of a model actor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.node_files import CheckpointFiles
from pipeline.tasks.base import Head, HeadParts, Task, TaskFiles
from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel

Checkpoints = Mapping[str, CheckpointFiles]  # of one backbone, by task


@dataclass(frozen=True)
class AnnotatorSettings:
    """What an `Annotator` has to know of its job. Picklable; tasks by name in all mappings.

    Attributes:
        tasks, options: all of the job's, even where an actor holds the heads of some only.
        frame_s: seconds from one encoder frame to the next, as the feature extractor says.
        files: what each task's `read_files` returned.
        dtype: of weights and arithmetic: "float32", "bfloat16" or "float16".
        token_budget: frames of a pack; None: 4096 on CPUs, 65536 on GPUs.
        threads: of the CPU.
        device: "cpu", or "cuda" for a GPU.
    """

    tasks: Mapping[str, Task]
    options: Mapping[str, Any]
    frame_s: float
    files: Mapping[str, TaskFiles] = field(default_factory=dict)
    dtype: str = "float32"
    token_budget: int | None = None
    threads: int = 1
    device: str = "cpu"


def load_models(
    checkpoints: Checkpoints, tasks: Mapping[str, Task], dtype: torch.dtype, device: torch.device
) -> dict[str, Wav2Vec2BertPreTrainedModel]:
    """The models of a backbone; all of them hold the encoder of the first."""
    models: dict[str, Wav2Vec2BertPreTrainedModel] = {}
    encoder: Wav2Vec2BertPreTrainedModel | None = None
    for name, checkpoint in checkpoints.items():
        kind = tasks[name].model()
        if encoder is not None and isinstance(encoder, kind):
            models[name] = encoder  # a task of the bare encoder, which another checkpoint brought along
            continue
        models[name] = kind.from_pretrained(
            checkpoint.directory(), dtype=dtype, device=device, backbone=encoder
        )
        encoder = encoder or models[name].base_model
    return models


def build_heads(
    backbones: Sequence[Checkpoints], settings: AnnotatorSettings, device: torch.device
) -> list[dict[str, Head]]:
    """The heads of each backbone, by task. A head is given those that its task uses, whatever their backbone.

    Raises:
        ValueError: tasks use each other in a circle.
    """
    dtype = getattr(torch, settings.dtype)
    models: dict[str, Wav2Vec2BertPreTrainedModel] = {}
    for checkpoints in backbones:
        models |= load_models(checkpoints, settings.tasks, dtype, device)
    files = {name: found for checkpoints in backbones for name, found in checkpoints.items()}
    built: dict[str, Head] = {}
    while left := [name for name in models if name not in built]:
        ready = [
            name
            for name in left
            if all(used in built or used not in models for used in settings.tasks[name].uses)
        ]
        if not ready:
            raise ValueError(f"the tasks {', '.join(left)} use each other in a circle")
        for name in ready:
            task = settings.tasks[name]
            parts = HeadParts(
                model=models[name],
                options=settings.options[name],
                checkpoint=files[name],
                files=settings.files.get(name),
                device=device,
                frame_s=settings.frame_s,
                used={used: built[used] for used in task.uses if used in built},
            )
            built[name] = task.head(parts)
    return [{name: built[name] for name in checkpoints} for checkpoints in backbones]
