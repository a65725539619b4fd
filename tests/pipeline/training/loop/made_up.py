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


TOKENIZER = Vocabulary.made(count_characters([LETTERS]), 1).tokenizer()


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
    labels: Mapping[str, Labeller] | None = None,
    **course: Any,
) -> Training:
    """A run that transcribes `ref_text`, or what another model learns.

    Args:
        labels: what the model learns, by task.
        course: fields of `Course`.
    """
    if model is None:
        model, labels = transcribing()
    write_index(folder, "train", rows, labels or {})
    learner, _ = model.build()
    told = Course(
        seed=0,
        identity="made up",
        weights=dict.fromkeys(learner.results, 1.0),
        schedule=Schedule("cosine", 1),
        kept=Kept(),
        packs_per_step=1,
        layers=SMALL["num_hidden_layers"],
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
        settings=settings_of(learner, extractor(), TOKENIZER if labels else None),
    )


def transcribing() -> tuple[ModelParts, dict[str, Labeller]]:
    config = Wav2Vec2BertConfig.from_dict(SMALL)
    head = {"vocab_size": len(TOKENIZER), "pad_token_id": TOKENIZER.pad_token_id}
    labeller = Transcribe("text", TextSettings(), TOKENIZER, config)
    return ModelParts(config.to_dict(), {"transcribe": head}, {}, seed=0), {"transcribe": labeller}


def write_index(
    folder: Path, part: str, rows: Sequence[Mapping[str, Any]], labels: Mapping[str, Labeller]
) -> str:
    """The features of a part, and what each clip of them teaches; where that is."""
    columns = {column: None for labeller in labels.values() for column in labeller.columns}
    place = folder if part == "train" else folder / part
    built = build_index(rows_of(place, rows, *columns), labels, Limits())
    assert len(built.index)
    built.index.save(str(folder / f"{part}.arrow"), STORAGE)
    return str(folder / f"{part}.arrow")
