"""The parts of every job's spec: what to read, how to compute, what to write."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from pipeline.corpus.lanes import Lane
from pipeline.storage import PublicOptions, StorageOptions, as_hosts, as_places, as_utf8
from pipeline.tasks.base import CHANGES_OUTPUT

_MANY = 2**31 - 1
_DETECTORS = ("energy", "silero")
# A part's title is the group of its fields in the help; a field may name another, or stand first in it.
_RUNNING: dict[str, Any] = {"group": "running"}
MODEL: dict[str, Any] = {"group": "model"}
_LEADING: dict[str, Any] = {"first": True}


class InputSpec(PublicOptions):
    """What to read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="input")

    input: list[str] = Field(
        min_length=1,
        description="directory, glob, file or s3:// URI of audio: Parquet shards, WebDataset tars, "
        "loose audio files, manifests (JSON, TSV, CSV), data of Kaldi, NeMo, Lhotse and Hugging Face; repeat "
        "for several",
    )
    allow_hosts: list[str] = Field(
        default_factory=list,
        description="web servers that inputs may lie on, and manifests and Parquet rows may name audio of: "
        "a.example,b.example:8080; unset: http(s):// is refused",
    )
    where: str | None = Field(
        None,
        min_length=1,
        description="annotate only clips for which this SQL expression (DuckDB) is true; it can use the "
        "input's columns under their output names, clip_id and shard, as in \"language = 'en'\"",
    )
    since: datetime | None = Field(
        None,
        description="read only shards modified at or after this time: ISO 8601 (UTC without an offset), or "
        "an age such as 36h or 7d",
    )
    limit: int | None = Field(
        None,
        ge=1,
        le=_MANY,
        description="annotate at most this many clips; the next run continues from there",
    )
    channel: str = Field(
        "mean",
        description="channel of multichannel audio: 'mean' of all, 'left', 'right', or an index from 0",
        json_schema_extra=CHANGES_OUTPUT,
    )
    max_duration_s: float | None = Field(
        None,
        gt=0,
        description="turn clips longer than this many seconds into error rows (code too_long); "
        "unset: any length",
        json_schema_extra=CHANGES_OUTPUT,
    )
    storage: StorageOptions = Field(default_factory=lambda: StorageOptions(), description="access to s3://")

    @field_validator("input", mode="before")
    @classmethod
    def _one_input_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    _places = field_validator("input")(as_places)
    _hosts = field_validator("allow_hosts", mode="before")(as_hosts)

    @field_validator("channel", mode="before")
    @classmethod
    def _known_channel(cls, value: Any) -> Any:
        value = str(value)
        if not re.fullmatch(r"mean|left|right|[0-9]{1,4}", value):
            raise ValueError("must be 'mean', 'left', 'right' or a channel's index from 0")
        return value

    @field_validator("max_duration_s", mode="before")
    @classmethod
    def _any_length(cls, value: Any) -> Any:
        """Infinity, which JSON cannot write, is what unset means."""
        with suppress(TypeError, ValueError):
            return None if float(value) == math.inf else value
        return value

    @field_validator("since", mode="before")
    @classmethod
    def _time(cls, value: Any) -> Any:
        if isinstance(value, date):  # YAML has made a time or a day of it
            value = value.isoformat()
        if isinstance(value, str):
            try:
                if age := re.fullmatch(r"(\d+(?:\.\d+)?)([hd])", value.strip()):
                    hours = float(age[1]) * (24 if age[2] == "d" else 1)
                    return datetime.now(UTC) - timedelta(hours=hours)
                value = datetime.fromisoformat(value.strip())
            except (ValueError, OverflowError):
                raise ValueError(
                    "must be a time such as 2026-11-24T06:00, or an age such as 36h or 7d"
                ) from None
        if isinstance(value, datetime) and value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        return value


class CorpusSpec(InputSpec):
    """What to read and annotate."""

    vad: str | None = Field(
        None,
        description="annotate speech only, as 'energy' or 'silero' finds it, or 'module:Class', a "
        "voice-activity detector of your own; unset: annotate everything",
        json_schema_extra=CHANGES_OUTPUT,
    )

    @field_validator("vad", mode="after")
    @classmethod
    def _known_vad(cls, value: str | None) -> str | None:
        if value is not None and value not in _DETECTORS and not re.fullmatch(r"[\w.]+:\w+", value):
            raise ValueError("must be 'energy', 'silero', or 'module:Class' of a detector of your own")
        return value


class ClusterSpec(PublicOptions):
    """On what to compute."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="cluster")

    featurize_actors: int | None = Field(
        None,
        ge=1,
        le=_MANY,
        description="maximum number of CPU actors for decoding and features; unset: as many as CPUs allow",
    )
    ray_address: str | None = Field(
        None,
        description="Ray cluster to join; unset: that of RAY_ADDRESS, else that of `ray start` on this "
        "machine, else a new one",
    )


class ComputeSpec(ClusterSpec):
    """How to compute, and on what."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="precision of the models' weights and arithmetic; auto: that of the table; of a new one "
        "bfloat16 where the model actors' devices are faster with it, else float32",
        json_schema_extra=CHANGES_OUTPUT | MODEL,
    )
    window_s: float = Field(
        40.0,
        ge=1,
        le=86_400,
        description="maximum seconds of audio in one window of the encoder; longer recordings are cut into "
        "windows and stitched",
        json_schema_extra=CHANGES_OUTPUT | MODEL,
    )
    overlap_s: float = Field(
        4.0,
        ge=0,
        description="minimum seconds that neighbouring windows share",
        json_schema_extra=CHANGES_OUTPUT | MODEL,
    )
    token_budget: int | None = Field(
        None,
        ge=1,
        le=_MANY,
        description="maximum number of frames in one forward pass (20 ms each with the published feature "
        "extractor); unset: 4096 on CPUs, 65536 on GPUs",
        json_schema_extra=MODEL,
    )
    num_actors: str = Field(
        "auto",
        description="number of model actors: a number, MIN:MAX to autoscale, on a cluster that may grow, "
        "or auto (one per GPU; on CPUs one per node, with all cores as its threads)",
        json_schema_extra=_LEADING,
    )
    num_gpus_per_actor: float | None = Field(
        None,
        ge=0,
        le=1_000,
        description="GPUs of one model actor (fractions share one); unset: 1 where the cluster has GPUs",
        json_schema_extra=_LEADING,
    )

    @field_validator("num_actors", mode="before")
    @classmethod
    def _known_pool(cls, value: Any) -> Any:
        value = str(value)
        match = re.fullmatch(r"auto|([1-9][0-9]{0,8})(?::([1-9][0-9]{0,8}))?", value)
        if match is None or (match[2] and int(match[1]) > int(match[2])):
            raise ValueError("must be 'auto', a positive number, or MIN:MAX")
        return value

    @field_validator("num_gpus_per_actor", mode="after")
    @classmethod
    def _gpus_that_ray_shares_out(cls, value: float | None) -> float | None:
        if value is not None and value != (round(value) if value > 1 else round(value, 4)):
            raise ValueError("must be a whole number, or a fraction of one GPU with at most four decimals")
        return value

    @model_validator(mode="after")
    def _window_longer_than_overlap(self) -> Self:
        if self.overlap_s > self.window_s / 2:
            raise ValueError(
                f"overlap_s: {self.overlap_s:g} is more than half of window_s ({self.window_s:g}), "
                "so that more than two windows would meet"
            )
        return self


class TableSpec(PublicOptions):
    """What to write."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="output")

    output: str = Field(min_length=1, description="directory or s3:// URI of the Parquet table")
    rows_per_file: int | None = Field(
        None,
        ge=1,
        le=_MANY,
        description="minimum rows per output file; a killed run loses at most about this many; "
        "unset: about 200 files a run, each of 100 to 20000 rows",
    )
    report: str | None = Field(
        None,
        min_length=1,
        description="HTML file to write when the job is done: the table to look at and to listen to",
    )
    lane: str | None = Field(
        None,
        description="do one lane's share of the shards, such as 3/16: sixteen jobs, each with a lane of its "
        "own, share one table; unset: all shards",
        json_schema_extra=_RUNNING,
    )
    overwrite: bool = Field(False, description="delete what the output holds, then annotate everything")
    retry_errors: bool = Field(
        False, description="annotate again the clips whose rows are errors", json_schema_extra=_RUNNING
    )
    plan: bool = Field(
        False,
        description="print shards, clips, hours and estimated device-hours, then exit",
        json_schema_extra=_RUNNING,
    )
    max_error_rate: float = Field(
        1.0,
        ge=0,
        le=1,
        description="exit with status 3 if more than this share of the run's clips are error rows",
        json_schema_extra=_RUNNING,
    )

    _place = field_validator("output", mode="before")(as_utf8)

    @model_validator(mode="after")
    def _lanes_only_add_rows(self) -> Self:
        if self.shards_of_lane and (self.overwrite or self.retry_errors):
            raise ValueError("lane: --overwrite and --retry-errors change files that all lanes share")
        return self

    @property
    def shards_of_lane(self) -> Lane | None:
        """Raises ValueError for what is no lane."""
        return None if self.lane is None else Lane.parse(self.lane)
