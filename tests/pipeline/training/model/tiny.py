"""Tiny learners and batches to feed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.training.batches.batch import Batch, Pack
from pipeline.training.model.build import build
from pipeline.training.model.multitask import MultiTask
from w2vbert.packing import Packed

WIDTH = 10
CONFIG: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "feature_projection_input_dim": WIDTH,
    "conv_depthwise_kernel_size": 5,
    "classifier_proj_size": 7,
    "tdnn_dim": [8, 6, 9],
    "tdnn_kernel": [3, 2, 1],
    "tdnn_dilation": [1, 3, 1],
    "xvector_output_dim": 5,
    "mask_time_length": 3,
    "initializer_range": 0.2,
}
STILL: dict[str, Any] = dict.fromkeys(
    (
        *("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout"),
        *("conformer_conv_dropout", "layerdrop", "mask_time_prob"),
    ),
    0.0,
)
HEADS: dict[str, dict[str, Any]] = {
    "transcribe": {"vocab_size": 6},
    "classify": {"id2label": {0: "dog", 1: "cat", 2: "owl"}},
    "diarize": {"num_labels": 3},
    "embed": {"num_labels": 4},
}
LENGTHS = (33, 19, 26)


def tiny(tasks: Sequence[str] = tuple(HEADS), seed: int = 0, **fields: Any) -> MultiTask:
    torch.manual_seed(seed)
    heads = {task: HEADS[task] for task in tasks}
    learner = build({**CONFIG, **fields}, heads, {}).learner
    assert isinstance(learner, MultiTask)
    return learner


def targets(lengths: Sequence[int], seed: int = 0) -> dict[str, list[Tensor | None]]:
    """Of every clip for every task."""
    rng = np.random.default_rng(seed)
    return {
        "transcribe": [torch.from_numpy(rng.integers(1, 6, rng.integers(1, 6))) for _ in lengths],
        "classify": [torch.tensor(rng.integers(3)) for _ in lengths],
        "diarize": [
            torch.from_numpy(rng.integers(0, 2, (length, rng.integers(1, 4)))).float() for length in lengths
        ],
        "embed": [torch.tensor(rng.integers(4)) for _ in lengths],
    }


def batch(
    lengths: Sequence[int] = LENGTHS,
    given: Mapping[str, Sequence[Tensor | None]] | None = None,
    *,
    seed: int = 7,
) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        pack=Pack(0, 0, np.arange(len(lengths))),
        seed=seed,
        clip_ids=[f"clip-{row}" for row in range(len(lengths))],
        speeds=[1.0] * len(lengths),
        features=Packed(torch.randn(sum(lengths), WIDTH, generator=generator), tuple(lengths)),
        targets=targets(lengths, seed) if given is None else given,
    )
