"""What a job is told. One declaration is the command line, the YAML file and the environment (see jobs/cli).

A `JobSpec` is composed of parts: what to read, how to compute, what to write, and the options of each task.
Wherever a user gives or sees their fields, these stand flat beside each other. `job_spec` makes the spec of
one task's job, `annotate_spec` that of the job for any of them; both can also be imported from here by their
names, `TranscribeSpec`, `AnnotateSpec` and so on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from pipeline.corpus.lanes import Lane
from pipeline.metrics.base import Metric
from pipeline.storage import Storage, StorageOptions, as_hosts, as_places, as_utf8
from pipeline.tasks import TASKS
from pipeline.tasks.base import CHANGES_OUTPUT, NoOptions, Task

_CHECKPOINT = "a local directory, an s3:// URI or a Hugging Face hub id"
# A part's title is the group of its fields in the help; a field may name another, or stand first in it.
_RUNNING: dict[str, Any] = {"group": "running"}
_MODEL: dict[str, Any] = {"group": "model"}


class CorpusSpec(BaseModel):
    """What to read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="input")

    input: list[str] = Field(
        min_length=1,
        description="directory, glob, file or s3:// URI of audio: Parquet shards, WebDataset tars, "
        "loose audio files, JSON manifests; repeat for several",
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
        None, ge=1, description="annotate at most this many clips; the next run continues from there"
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
    vad: str | None = Field(
        None,
        description="annotate speech only, as 'energy' finds it, or 'module:Class', a voice-activity "
        "detector of your own; unset: annotate everything",
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
        if value not in ("mean", "left", "right") and not value.isdigit():
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
            if age := re.fullmatch(r"(\d+(?:\.\d+)?)([hd])", value.strip()):
                hours = float(age[1]) * (24 if age[2] == "d" else 1)
                return datetime.now(UTC) - timedelta(hours=hours)
            try:
                value = datetime.fromisoformat(value.strip())
            except ValueError:
                raise ValueError(
                    "must be a time such as 2026-11-24T06:00, or an age such as 36h or 7d"
                ) from None
        if isinstance(value, datetime) and value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        return value

    @field_validator("vad", mode="after")
    @classmethod
    def _known_vad(cls, value: str | None) -> str | None:
        if value is not None and value != "energy" and not re.fullmatch(r"[\w.]+:\w+", value):
            raise ValueError("must be 'energy', or 'module:Class' of a detector of your own")
        return value


class ComputeSpec(BaseModel):
    """How to compute, and on what."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="cluster")

    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="precision of the models' weights and arithmetic",
        json_schema_extra=CHANGES_OUTPUT | _MODEL,
    )
    window_s: float = Field(
        40.0,
        ge=1,
        description="maximum seconds of audio in one window of the encoder; longer recordings are cut into "
        "windows and stitched",
        json_schema_extra=CHANGES_OUTPUT | _MODEL,
    )
    overlap_s: float = Field(
        4.0,
        ge=0,
        description="minimum seconds that neighbouring windows share",
        json_schema_extra=CHANGES_OUTPUT | _MODEL,
    )
    token_budget: int | None = Field(
        None,
        ge=1,
        description="maximum number of frames in one forward pass (20 ms each with the published feature "
        "extractor); unset: 4096 on CPUs, 65536 on GPUs",
        json_schema_extra=_MODEL,
    )
    num_actors: str = Field(
        "auto",
        description="number of model actors: a number, MIN:MAX to autoscale, on a cluster that may grow, "
        "or auto (one per GPU; on CPUs one per node, with all cores as its threads)",
    )
    num_gpus_per_actor: float | None = Field(
        None,
        ge=0,
        description="GPUs of one model actor (fractions share one); unset: 1 where the cluster has GPUs",
    )
    featurize_actors: int | None = Field(
        None,
        ge=1,
        description="maximum number of CPU actors for decoding and features; unset: as many as CPUs allow",
    )
    ray_address: str | None = Field(
        None,
        description="Ray cluster to join; unset: that of RAY_ADDRESS, else that of `ray start` on this "
        "machine, else a new one",
    )

    @field_validator("num_actors", mode="before")
    @classmethod
    def _known_pool(cls, value: Any) -> Any:
        value = str(value)
        match = re.fullmatch(r"auto|([1-9]\d*)(?::([1-9]\d*))?", value)
        if match is None or (match[2] and int(match[1]) > int(match[2])):
            raise ValueError("must be 'auto', a positive number, or MIN:MAX")
        return value

    @model_validator(mode="after")
    def _window_longer_than_overlap(self) -> Self:
        if self.overlap_s > self.window_s / 2:
            raise ValueError(
                f"overlap_s: {self.overlap_s:g} is more than half of window_s ({self.window_s:g}), "
                "so that more than two windows would meet"
            )
        return self


class TableSpec(BaseModel):
    """What to write."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="output")

    output: str = Field(min_length=1, description="directory or s3:// URI of the Parquet table")
    rows_per_file: int | None = Field(
        None,
        ge=1,
        description="minimum rows per output file; a killed run loses at most about this many; "
        "unset: about 200 files a run, each of 100 to 20000 rows",
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


class JobSpec(BaseModel):
    """Annotate a speech corpus: audio shards in, one Parquet row per clip out.

    Keyword arguments are flat: `TranscribeSpec(input=["corpus"], output="table", model="ctc")`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: CorpusSpec
    compute: ComputeSpec
    table: TableSpec

    tasks_by_field: ClassVar[Mapping[str, Task]] = {}  # field of the checkpoint -> its task

    def __init__(self, **values: Any) -> None:  # for type checkers: the fields of the parts are arguments too
        super().__init__(**values)

    @classmethod
    def parts(cls) -> dict[str, type[BaseModel]]:
        """The fields of the spec that are parts."""
        return {
            name: field.annotation
            for name, field in cls.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        }

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = dict(values)
        for part, kind in cls.parts().items():
            flat = {name: given.pop(name) for name in kind.model_fields if name in given}
            given[part] = {**dict(given.get(part, {})), **flat}
        return given

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if not self.models:
            flags = ", ".join(f"--{field}" for field in self.tasks_by_field)
            raise ValueError(f"nothing to annotate: give any of {flags}")
        return self

    @property
    def models(self) -> dict[str, str]:
        """The checkpoint of each annotation that is asked for."""
        given = {task.name: getattr(self, field) for field, task in self.tasks_by_field.items()}
        return {name: model for name, model in given.items() if model is not None}

    @property
    def model_flags(self) -> dict[str, str]:
        """The flag that names each task's checkpoint."""
        return {task.name: f"--{field}" for field, task in self.tasks_by_field.items()}

    @property
    def tasks(self) -> dict[str, Task]:
        """The annotations that are asked for."""
        asked = self.models
        return {task.name: task for task in self.tasks_by_field.values() if task.name in asked}

    def options(self, task: str) -> Any:
        """The options of a task; the default ones if this job does not have it."""
        return getattr(self, _part_of(task), None) or TASKS[task].options()

    def metrics(self, storage: Storage) -> dict[str, Metric]:
        """Metrics by task, of every registered one: a summary has the keys of those that its job lacks, too.

        Raises:
            JobError: a reference cannot be read.
        """
        return {
            name: task.metric(self.options(name), storage)
            for name, task in TASKS.items()
            if task.metric is not None
        }

    def output_settings(self) -> dict[str, Any]:
        """The settings that decide what is written, without the models' places (digests stand for them).

        Options of annotations that the job does not make decide nothing.
        """
        settings = {}
        idle = {_part_of(task.name) for task in self.tasks_by_field.values()} - {*map(_part_of, self.tasks)}
        for part in self.parts():
            if part in idle:
                continue
            held = getattr(self, part)
            for name, field in type(held).model_fields.items():
                if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get(
                    "changes_output"
                ):
                    settings[name] = getattr(held, name)
        return settings

    def public(self) -> dict[str, Any]:
        """The whole spec, flat, for metadata and summaries: never a credential."""
        secrets = {"corpus": {"storage": {"key", "secret", "token"}}}
        flat: dict[str, Any] = {}
        for name, value in self.model_dump(mode="json", exclude=secrets).items():
            flat |= value if name in self.parts() else {name: value}
        return flat


def job_spec(task: str) -> type[JobSpec]:
    """The spec of the job that makes one annotation; its checkpoint is `model`."""
    return _make(_class_name(task), TASKS[task].about, (("model", TASKS[task]),))


def annotate_spec() -> type[JobSpec]:
    """The spec of the job that makes any annotations of those registered by now; each has its own flag."""
    about = (
        "Write any annotations in one run: checkpoints that share a backbone share its pass over the audio."
    )
    return _make("AnnotateSpec", about, tuple(TASKS.items()))


@cache
def _make(name: str, about: str, tasks: tuple[tuple[str, Task], ...]) -> type[JobSpec]:
    """A spec class with the checkpoints (field, task) and the options of these tasks."""
    fields: dict[str, Any] = {}
    for _, task in tasks:
        if task.options is not NoOptions:
            fields[_part_of(task.name)] = (task.options, Field())
    for field, task in tasks:
        description = f"checkpoint that {task.does}: {_CHECKPOINT}"
        required = field == "model"
        extra = _MODEL | {"first": True}
        fields[field] = (
            str if required else str | None,
            Field(... if required else None, min_length=1, description=description, json_schema_extra=extra),
        )
    made: type[JobSpec] = create_model(name, __base__=JobSpec, __doc__=about, __module__=__name__, **fields)
    made.tasks_by_field = dict(tasks)
    _refuse_shared_names(made)
    return made


def _refuse_shared_names(spec: type[JobSpec]) -> None:
    taken: dict[str, str] = dict.fromkeys(spec.model_fields.keys() - spec.parts().keys(), "a checkpoint")
    for part, kind in spec.parts().items():
        for name in kind.model_fields:
            if name in taken:
                raise ValueError(f"{spec.__name__}: {name} is a field of both {taken[name]} and {part}")
            taken[name] = part


def _part_of(task: str) -> str:
    return f"{task}_options"


def _class_name(task: str) -> str:
    return f"{task.title().replace('_', '')}Spec"


def __getattr__(name: str) -> type[JobSpec]:
    """`AnnotateSpec`, and of each task such as `TranscribeSpec`: made of the tasks registered by now."""
    if name == "AnnotateSpec":
        return annotate_spec()
    for task in TASKS:
        if name == _class_name(task):
            return job_spec(task)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
