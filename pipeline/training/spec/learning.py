"""The parts of a fine-tuning spec that say what is learned, and how."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from pipeline.storage import PublicOptions, as_utf8
from pipeline.training.optimiser.schedule import SCHEDULES

_FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
# The tasks of `model.objectives`, which needs torch: `--help` does not wait for that.
LEARNABLE = ("transcribe", "classify", "diarize", "embed")
# What may say which of two checkpoints is better, beside the loss.
METRICS = {
    "transcribe": ("wer", "cer"),
    "classify": ("accuracy", "macro_f1"),
    "diarize": ("der",),
    "embed": ("eer",),
    "masked-prediction": ("accuracy",),
}
_MASKED: dict[str, Any] = {"group": "masked prediction"}


def as_names(value: Any) -> Any:
    """A text, or a list of them, as what stands between commas."""
    given = [value] if isinstance(value, str | int | float) else value
    if not isinstance(given, list):
        return given
    return [name for text in given for name in str(text).split(",") if name]


def as_words(value: Any) -> Any:
    """As what stands between commas or blanks."""
    names = as_names(value)
    return [word for name in names for word in name.split()] if isinstance(names, list) else names


class ModelPart(PublicOptions):
    """What to train."""

    model_config = _FROZEN | {"title": "model", "protected_namespaces": ()}

    task: list[str] = Field(
        default_factory=list,
        description="annotations to learn, such as transcribe,classify,diarize,embed: one encoder with a "
        "head for each; required but for masked prediction",
        json_schema_extra={"first": True},
    )
    objective: Literal["supervised", "masked-prediction"] = Field(
        "supervised",
        description="learn from labels, or go on with pretraining: predict the codes of masked frames",
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="checkpoint to start from, of any task or of the bare encoder: a local directory, an "
        "s3:// URI or a Hugging Face hub id",
        json_schema_extra={"first": True},
    )
    architecture: str | None = Field(
        None,
        min_length=1,
        alias="model_config",
        description="JSON file of a Wav2Vec2BertConfig, to start from random weights",
        json_schema_extra={"first": True},
    )
    set: list[str] = Field(
        default_factory=list,
        description="field of the model's configuration to set, such as mask_time_prob=0.1 or "
        "add_adapter=true",
    )
    task_weights: dict[str, float] = Field(
        default_factory=dict,
        description="weight of a task's loss in the sum, such as transcribe=1,embed=0.3; unset: 1 each",
    )
    new_heads: bool = Field(False, description="start with random heads where the checkpoint has some")
    mask_prob: float = Field(
        0.65,
        gt=0,
        le=1,
        description="share of the frames to mask, if no spans overlapped",
        json_schema_extra=_MASKED,
    )
    mask_length: int = Field(
        10, ge=1, le=1000, description="number of frames in a masked span", json_schema_extra=_MASKED
    )
    min_masks: int = Field(
        2,
        ge=0,
        le=1000,
        description="minimum masked spans in a clip, as far as they fit",
        json_schema_extra=_MASKED,
    )
    codebook_size: int = Field(
        8192, ge=2, le=1 << 20, description="number of codes in a codebook", json_schema_extra=_MASKED
    )
    codebook_dim: int = Field(16, ge=1, le=4096, description="width of a code", json_schema_extra=_MASKED)
    num_codebooks: int = Field(
        1, ge=1, le=64, description="number of codebooks, each with its own head", json_schema_extra=_MASKED
    )

    _tasks = field_validator("task", mode="before")(as_words)

    @field_validator("task")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if twice := sorted({name for name in value if value.count(name) > 1}):
            raise ValueError(f"names {', '.join(twice)} twice")
        return value

    @field_validator("task_weights", mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.replace(",", " ").split()]
        if any(not sign for _, sign, _ in pairs):
            raise ValueError("must be pairs such as transcribe=1,embed=0.3")
        return {name: number for name, _, number in pairs}

    _place = field_validator("architecture", mode="before")(as_utf8)

    @property
    def overrides(self) -> dict[str, Any]:
        """The fields to set, with values as JSON has them; what is no JSON is text."""
        return {name: _value(text) for name, _, text in (pair.partition("=") for pair in self.set)}

    @property
    def masked(self) -> bool:
        return self.objective == "masked-prediction"

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if (self.model is None) == (self.architecture is None):
            raise ValueError(
                "give --model to start from a checkpoint, or --model-config to start from nothing"
            )
        if bad := next((pair for pair in self.set if "=" not in pair), None):
            raise ValueError(f"set: {bad!r} is no pair such as mask_time_prob=0.1")
        if self.masked and self.task:
            raise ValueError("task: masked prediction needs no labels, and learns no task beside it")
        if not self.masked and not self.task:
            raise ValueError("task is missing: give --task, such as --task transcribe")
        if strange := sorted(self.task_weights.keys() - set(self.task)):
            raise ValueError(f"task_weights: {', '.join(strange)} is not among the tasks to learn")
        return self


class AugmentationPart(PublicOptions):
    """What is done to the features of training clips, anew in every epoch; drawn from the seed."""

    model_config = _FROZEN | {"title": "augmentation"}

    speeds: list[float] = Field(
        default_factory=lambda: [1.0],
        description="speeds of which each clip is prepared, such as 0.9,1.0,1.1",
    )
    gain_db: float = Field(0.0, ge=0, le=60, description="greatest change of loudness before noise is added")
    noise: list[str] = Field(
        default_factory=list,
        description="noise to add: white, pink, brown, or places of noise recordings as for --train",
    )
    noise_prob: float = Field(
        0.5, ge=0, le=1, description="share of the clips that get noise, if there is any"
    )
    noise_snr_db: str = Field("5:30", description="signal-to-noise ratio of added noise, MIN:MAX in decibels")
    mel_warp: float = Field(
        0.0, ge=0, le=0.5, description="greatest share by which the mel axis is stretched or squeezed"
    )
    freq_masks: int = Field(0, ge=0, le=80, description="number of masks over mel bins")
    freq_mask_width: int = Field(27, ge=1, le=1024, description="greatest number of mel bins of a mask")
    concat_prob: float = Field(
        0.0, ge=0, le=1, description="share of the clips that another one is joined to (transcribe alone)"
    )
    crop_s: str | None = Field(
        None, description="x-vectors are learned from random parts of so many seconds, MIN:MAX; unset: all"
    )

    _speeds_listed = field_validator("speeds", mode="before")(as_words)
    _noise_listed = field_validator("noise", mode="before")(as_names)

    @field_validator("speeds")
    @classmethod
    def _speeds(cls, value: list[float]) -> list[float]:
        if not value or any(not 0.5 <= speed <= 2 for speed in value) or len(set(value)) < len(value):
            raise ValueError("must be different numbers from 0.5 to 2")
        return value

    @field_validator("noise_snr_db", "crop_s")
    @classmethod
    def _range(cls, value: str | None) -> str | None:
        if value is not None:
            as_range(value)
        return value


class OptimiserPart(PublicOptions):
    """How weights are changed."""

    model_config = _FROZEN | {"title": "optimisation"}

    learning_rate: float = Field(5e-5, gt=0, le=1, description="peak learning rate of AdamW")
    head_learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="that of new heads; unset: ten times --learning-rate, and the same where "
        "all weights are new",
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor of the learning rate from each encoder layer to the one below it"
    )
    adam_betas: str = Field("0.9,0.98", description="betas of AdamW")
    weight_decay: float = Field(
        0.01, ge=0, le=1, description="weight decay of matrices (norms, biases and embeddings have none)"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="gradients of a greater norm are scaled down to it")
    lr_scheduler: Literal[SCHEDULES] = Field(  # type: ignore[valid-type]
        "tri_stage", description="course of the learning rate after the warm-up"
    )
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="share of the steps in which the rate rises")
    hold_ratio: float = Field(
        0.4, ge=0, le=1, description="share of the steps at the peak (tri_stage, cosine)"
    )
    final_lr_scale: float = Field(0.05, ge=0, le=1, description="share of the peak rate at the end")
    max_steps: int | None = Field(None, ge=1, description="number of steps")
    num_epochs: float | None = Field(
        None, gt=0, description="number of epochs; unset: 10, without --max-steps"
    )
    max_minutes: float | None = Field(
        None, gt=0, description="as many steps as fit these minutes, by the time of a few before the first"
    )
    gradient_accumulation: int = Field(
        1, ge=1, description="number of packs that each worker adds up in a step"
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="decay of a moving average of the weights, which is then published"
    )
    freeze: list[Literal["feature_projection", "encoder"]] = Field(
        default_factory=list, description="parts that stay as they are: feature_projection, encoder"
    )
    freeze_layers: int = Field(
        0, ge=0, description="number of encoder layers, from the input on, that stay as they are"
    )
    freeze_encoder_steps: int = Field(
        0, ge=0, description="number of steps in which only heads learn, before the encoder joins in"
    )
    margin: float = Field(
        0.2,
        ge=0,
        le=1,
        description="margin of the AM-softmax for x-vectors; it grows from 0 over the first "
        "third of the steps",
    )

    _parts = field_validator("freeze", mode="before")(as_words)

    @field_validator("adam_betas")
    @classmethod
    def _betas(cls, value: str) -> str:
        if not re.fullmatch(r"0(\.\d+)?, ?0(\.\d+)?", value):
            raise ValueError("must be two numbers from 0 to 1, such as 0.9,0.98")
        return value

    @property
    def betas(self) -> tuple[float, float]:
        first, second = self.adam_betas.split(",")
        return float(first), float(second)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        given = [
            name for name in ("max_steps", "num_epochs", "max_minutes") if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise ValueError(f"{given[0]}: {' and '.join(given)} both say how long to train; give one")
        if self.warmup_ratio + self.hold_ratio > 1:
            raise ValueError("hold_ratio: warm-up and hold are more than all steps")
        return self


def as_range(text: str) -> tuple[float, float]:
    """Raises ValueError for what is not MIN:MAX."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?):(-?\d+(?:\.\d+)?)", text)
    if match is None or float(match[1]) > float(match[2]):
        raise ValueError("must be MIN:MAX, such as 5:30")
    return float(match[1]), float(match[2])


def _value(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text
