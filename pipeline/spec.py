"""What a job is told. One declaration is the command line, the YAML file and the environment (see cli.py)."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.storage import StorageOptions

# Fields that change what is written. A run with other values never mixes into an existing output.
_OUTPUT: dict[str, Any] = {"changes_output": True}


class JobSpec(BaseModel):
    """Annotate a speech corpus: audio shards in, one Parquet row per clip out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: list[str] = Field(
        min_length=1,
        description="directory, glob, file or s3:// URI of audio: Parquet shards, WebDataset tars, "
        "loose audio files, JSONL manifests; may be given more than once",
    )
    output: str = Field(min_length=1, description="directory or s3:// URI of the Parquet table")
    model: str = Field(
        min_length=1,
        description="checkpoint: a local directory, an s3:// URI or a Hugging Face hub id",
        json_schema_extra=_OUTPUT,
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of the model's weights and arithmetic", json_schema_extra=_OUTPUT
    )
    channel: str = Field(
        "mean",
        description="of several channels: 'mean' of all, 'left', 'right', or an index from 0",
        json_schema_extra=_OUTPUT,
    )
    max_duration_s: float = Field(
        1800.0,
        gt=0,
        description="clips longer than this many seconds become error rows (code too_long)",
        json_schema_extra=_OUTPUT,
    )
    num_actors: str = Field(
        "auto",
        description="model actors: a number, MIN:MAX to autoscale, or auto "
        "(one per GPU; on CPUs one, with all cores as its threads)",
    )
    num_gpus_per_actor: float | None = Field(
        None,
        ge=0,
        description="GPUs of one model actor (fractions share one); unset: 1 where the cluster has GPUs",
    )
    featurize_actors: int | None = Field(
        None,
        ge=1,
        description="most CPU actors that decode and compute features; unset: as many as CPUs allow",
    )
    token_budget: int | None = Field(
        None,
        ge=1,
        description="most frames (20 ms each) in one forward pass; unset: 4096 on CPUs, 65536 on GPUs",
    )
    rows_per_file: int | None = Field(
        None,
        ge=1,
        description="fewest rows of an output file, and the most work a kill loses; "
        "unset: about 200 files a run, each of 100 to 20000 rows",
    )
    max_error_rate: float = Field(
        1.0,
        ge=0,
        le=1,
        description="exit with status 3 when a larger share of this run's clips are error rows",
    )
    overwrite: bool = Field(False, description="delete what the output holds and start anew")
    ray_address: str | None = Field(
        None,
        description="Ray cluster to use; unset: RAY_ADDRESS, a running local cluster, or a new local one",
    )
    storage: StorageOptions = Field(default_factory=lambda: StorageOptions(), description="access to s3://")

    @field_validator("input", mode="before")
    @classmethod
    def _one_input_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("channel", mode="before")
    @classmethod
    def _known_channel(cls, value: Any) -> Any:
        value = str(value)
        if value not in ("mean", "left", "right") and not value.isdigit():
            raise ValueError("must be 'mean', 'left', 'right' or a channel's index from 0")
        return value

    @field_validator("num_actors", mode="before")
    @classmethod
    def _known_pool(cls, value: Any) -> Any:
        value = str(value)
        match = re.fullmatch(r"auto|([1-9]\d*)(?::([1-9]\d*))?", value)
        if match is None or (match[2] and int(match[1]) > int(match[2])):
            raise ValueError("must be 'auto', a positive number, or MIN:MAX")
        return value

    def output_settings(self) -> dict[str, Any]:
        """The settings that decide what is written, without the model's place (its digest stands for it)."""
        chosen = {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("changes_output")
        }
        chosen.pop("model", None)
        return chosen

    def public(self) -> dict[str, Any]:
        """The whole spec for metadata and summaries: never a credential."""
        return self.model_dump(mode="json", exclude={"storage": {"key", "secret", "token"}})
