"""The parts of a fine-tuning spec that say what to read and write, and on what to compute."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from pipeline.spec.parts import CorpusSpec
from pipeline.storage import PublicOptions, StorageOptions, as_hosts, as_places, as_utf8

_FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_RUNNING: dict[str, Any] = {"group": "running"}


def _as_in_other_jobs(name: str) -> Any:
    return CorpusSpec.model_fields[name]


class DataPart(PublicOptions):
    """What to learn from."""

    model_config = _FROZEN | {"title": "input"}

    train: list[str] = Field(
        min_length=1,
        description="directory, glob, file or s3:// URI of labelled audio, as the input of the other jobs; "
        "repeat for several",
    )
    valid: list[str] = Field(
        default_factory=list,
        description="the same for validation; unset: a share of --train",
        json_schema_extra={"first": True},
    )
    valid_share: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of the speakers of --train (of the clips, where fewer than two are named) that is "
        "held out, at least one, if there is no --valid; 0: none",
    )
    text_column: str = Field("text", min_length=1, description="column that holds what is said")
    label_column: str = Field("label", min_length=1, description="column that holds the class of a clip")
    speaker_column: str = Field("speaker", min_length=1, description="column that holds who speaks")
    rttm: list[str] = Field(
        default_factory=list, description="RTTM file of who speaks when, to learn diarization; repeatable"
    )
    vocab: str | None = Field(
        None,
        min_length=1,
        description="vocab.json to use; unset: that of the checkpoint if it transcribes, "
        "else one made of the training texts",
    )
    lower_case: bool = Field(False, description="lower the case of texts")
    remove_characters: str = Field("", description="characters to take out of texts, such as ',.?!'")
    min_char_count: int = Field(
        5,
        ge=1,
        description="characters that come less often are left out of a vocabulary that is made; clips "
        "with them are not learned from",
    )
    min_duration_s: float = Field(0.2, ge=0, description="shorter clips are not learned from, in seconds")
    max_duration_s: float = Field(30.0, gt=0, le=3600, description="nor are longer ones")
    max_unusable: float = Field(
        0.05,
        ge=0,
        le=1,
        description="stop before training if more than this share of the clips cannot be used",
        json_schema_extra=_RUNNING,
    )
    where: str | None = _as_in_other_jobs("where")
    channel: str = _as_in_other_jobs("channel")
    allow_hosts: list[str] = _as_in_other_jobs("allow_hosts")
    storage: StorageOptions = Field(default_factory=lambda: StorageOptions(), description="access to s3://")

    @field_validator("train", "valid", "rttm", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    _places = field_validator("train", "valid", "rttm")(as_places)
    _hosts = field_validator("allow_hosts", mode="before")(as_hosts)


class RunPart(PublicOptions):
    """What to write, and how a long run is kept."""

    model_config = _FROZEN | {"title": "output"}

    output: str = Field(
        min_length=1, description="directory or s3:// URI of the checkpoints and everything else of the run"
    )
    features: str | None = Field(
        None,
        min_length=1,
        description="directory or s3:// URI of the features, which runs may share; unset: "
        "features in the output",
    )
    overwrite: bool = Field(False, description="delete the run that the output holds, and begin anew")
    keep_best: int = Field(1, ge=0, description="number of checkpoints to keep, the best by --metric")
    keep_last: int = Field(2, ge=1, description="number of checkpoints to keep, the last")
    plan: bool = Field(
        False,
        description="prepare the features, print what would be learned from them, then exit",
        json_schema_extra=_RUNNING,
    )
    seed: int = Field(0, ge=0, lt=1 << 31, description="of all that is random", json_schema_extra=_RUNNING)
    eval_steps: int | None = Field(
        None,
        ge=1,
        description="validate and save every so many steps; unset: once an epoch",
        json_schema_extra=_RUNNING,
    )
    save_steps: int | None = Field(
        None, ge=1, description="save every so many steps too", json_schema_extra=_RUNNING
    )
    metric: str | None = Field(
        None,
        description="which validation metric says what is best, such as transcribe/wer or loss; unset: "
        "that of the first task",
        json_schema_extra=_RUNNING,
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after so many validations without a better --metric",
        json_schema_extra=_RUNNING,
    )
    max_skipped_batches: int = Field(
        10,
        ge=0,
        description="exit with status 3 after more steps than this whose loss or gradient was not finite",
        json_schema_extra=_RUNNING,
    )
    max_failures: int = Field(
        3,
        ge=0,
        description="number of times that workers which died are started again",
        json_schema_extra=_RUNNING,
    )

    _place = field_validator("output", "features", mode="before")(as_utf8)


class ClusterPart(PublicOptions):
    """How to compute, and on what."""

    model_config = _FROZEN | {"title": "cluster"}

    num_workers: str = Field(
        "auto",
        description="number of workers: a number, MIN:MAX (elastic), or auto (one per GPU; one on CPUs)",
    )
    num_gpus_per_worker: int | None = Field(
        None, ge=0, le=1, description="unset: 1 where the cluster has GPUs"
    )
    threads_per_worker: int | None = Field(
        None, ge=1, description="CPU threads of a worker; unset: the node's cores, shared out"
    )
    parallel: Literal["ddp", "fsdp2"] = Field(
        "ddp", description="each worker holds all weights, or a share of them"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="type of the arithmetic (bfloat16: autocast; weights stay in float32)"
    )
    gradient_checkpointing: bool = Field(
        False,
        description="compute activations again in the backward pass: less memory for more time, for "
        "models of hundreds of millions of weights",
    )
    token_budget: int | None = Field(
        None,
        ge=1,
        description="maximum frames of a pack, long clips counting more; unset: 4096 on CPUs, 65536 on GPUs",
    )
    features_cache_gb: float = Field(
        50.0,
        gt=0,
        description="disk of each node for features that lie elsewhere; more of them than that are "
        "read in windows",
    )
    featurize_actors: int | None = Field(
        None,
        ge=1,
        description="maximum number of CPU actors for decoding and features; unset: as many as CPUs allow",
    )
    ray_address: str | None = Field(None, description="Ray cluster to join; unset: as for the other jobs")

    @field_validator("num_workers", mode="before")
    @classmethod
    def _known_workers(cls, value: Any) -> Any:
        value = str(value)
        match = re.fullmatch(r"auto|([1-9][0-9]{0,5})(?::([1-9][0-9]{0,5}))?", value)
        if match is None or (match[2] and int(match[1]) > int(match[2])):
            raise ValueError("must be 'auto', a positive number, or MIN:MAX")
        return value
