"""Runs on made-up speech, in this process and without Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.training.batches.augment import Augmentation
from pipeline.training.examples.building import Limits, build_index
from pipeline.training.examples.labels import Labeller
from pipeline.training.examples.labels.transcribe import Transcribe
from pipeline.training.examples.text import TextSettings
from pipeline.training.examples.vocabulary import Vocabulary, count_characters
from pipeline.training.loop.course import Course
from pipeline.training.loop.worker import DataParts, ModelParts, Training
from pipeline.training.optimiser.groups import Rates
from pipeline.training.optimiser.schedule import Schedule
from pipeline.training.publish import settings_of
from pipeline.training.state.checkpoints import Kept
from tests.pipeline.training.tables import STORAGE, clip, extractor, rows_of
from tests.spoken import LETTERS, RATE, Utterance
from w2vbert.config import Wav2Vec2BertConfig

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "output_hidden_size": 32,
    "conv_depthwise_kernel_size": 7,
    "left_max_position_embeddings": 8,
    "right_max_position_embeddings": 8,
    "layerdrop": 0.0,
    "final_dropout": 0.0,
    "conformer_conv_dropout": 0.0,
    "mask_time_prob": 0.0,
    "ctc_loss_reduction": "mean",
}


def row_of(spoken: Utterance, **columns: Any) -> dict[str, Any]:
    """A row of a feature table."""
    features = extractor().extract(spoken.waveform).astype(np.float16)
    return {
        **clip(spoken.name, None, **columns),
        "frames": len(features),
        "features": features.tobytes(),
        "log_mel_mean": np.zeros(80, np.float32),
        "log_mel_std": np.ones(80, np.float32),
        "duration_s": len(spoken.waveform) / RATE,
    }


def training_of(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    rate: float,
    model: ModelParts | None = None,
    **course: Any,
) -> Training:
    """A run that transcribes `ref_text`, or what another model learns.

    Args:
        course: fields of `Course`.
    """
    config = Wav2Vec2BertConfig.from_dict(SMALL)
    tokenizer = Vocabulary.made(count_characters([LETTERS]), 1).tokenizer()
    labels: dict[str, Labeller] = {}
    if model is None:
        labels["transcribe"] = Transcribe("text", TextSettings(), tokenizer, config)
        head = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        model = ModelParts(config.to_dict(), {"transcribe": head}, {}, seed=0)
    built = build_index(rows_of(folder, rows, *(["text"] if labels else [])), labels, Limits())
    assert len(built.index) == len(rows)
    built.index.save(str(folder / "train.arrow"), STORAGE)
    learner, _ = model.build()
    told = Course(
        seed=0,
        identity="made up",
        weights=dict.fromkeys(learner.results, 1.0),
        schedule=Schedule("cosine", 1),
        kept=Kept(),
        packs_per_step=1,
        layers=config.num_hidden_layers,
        eval_steps=1_000_000,
    )
    return Training(
        output=str(folder / "out"),
        storage=STORAGE,
        lock=None,
        course=replace(told, **course),
        model=model,
        data=DataParts(str(folder / "train.arrow"), None, 400, Augmentation()),
        rates=Rates(rate, rate),
        extractor=extractor(),
        settings=settings_of(learner, extractor(), tokenizer if labels else None),
    )
