"""What a job is told. One declaration is the command line, the YAML file and the environment (see cli.py).

`JobSpec` is what all jobs share. A mixin holds the options of each annotation, and the spec of a job puts
together what its annotations need.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.storage import StorageOptions

# Fields that change what is written. A run with other values never mixes into an existing output.
_OUTPUT: dict[str, Any] = {"changes_output": True}
_CHECKPOINT = "a local directory, an s3:// URI or a Hugging Face hub id"


class Task(StrEnum):
    """What can be written about a clip; each comes from a checkpoint with the head for it."""

    TRANSCRIBE = "transcribe"
    CLASSIFY = "classify"
    DIARIZE = "diarize"
    EMBED = "embed"


class JobSpec(BaseModel):
    """Annotate a speech corpus: audio shards in, one Parquet row per clip out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: list[str] = Field(
        min_length=1,
        description="directory, glob, file or s3:// URI of audio: Parquet shards, WebDataset tars, "
        "loose audio files, JSONL manifests; may be given more than once",
    )
    output: str = Field(min_length=1, description="directory or s3:// URI of the Parquet table")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of the models' weights and arithmetic", json_schema_extra=_OUTPUT
    )
    channel: str = Field(
        "mean",
        description="of several channels: 'mean' of all, 'left', 'right', or an index from 0",
        json_schema_extra=_OUTPUT,
    )
    window_s: float = Field(
        40.0,
        ge=1,
        description="seconds of audio that the encoder sees at once; longer recordings are cut into windows "
        "and stitched",
        json_schema_extra=_OUTPUT,
    )
    overlap_s: float = Field(
        4.0,
        ge=0,
        description="fewest seconds that neighbouring windows share",
        json_schema_extra=_OUTPUT,
    )
    vad: str | None = Field(
        None,
        description="annotate speech only: 'energy', or 'module:Class' of a voice-activity detector of your "
        "own; unset: everything",
        json_schema_extra=_OUTPUT,
    )
    max_duration_s: float | None = Field(
        None,
        gt=0,
        description="clips longer than this many seconds become error rows (code too_long); "
        "unset: any length",
        json_schema_extra=_OUTPUT,
    )
    where: str | None = Field(
        None,
        min_length=1,
        description="annotate only clips that this SQL expression (DuckDB's) holds for; it sees the input's "
        "columns under their output names, clip_id and shard, as in \"language = 'en'\"",
    )
    since: datetime | None = Field(
        None,
        description="read only shards that changed at this time or later: ISO 8601 (UTC unless it says "
        "otherwise), or an age such as 36h or 7d",
    )
    limit: int | None = Field(
        None, ge=1, description="annotate at most so many clips; the next run goes on after them"
    )
    retry_errors: bool = Field(False, description="annotate the clips anew whose rows are errors")
    plan: bool = Field(
        False, description="only tell what there is to do: shards, clips, hours, device-hours; run nothing"
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
        description="Ray cluster to use; unset: RAY_ADDRESS, that of `ray start` on this machine, a new one",
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

    @model_validator(mode="after")
    def _window_longer_than_overlap(self) -> JobSpec:
        if self.overlap_s > self.window_s / 2:
            raise ValueError(
                f"overlap_s: {self.overlap_s:g} is more than half of window_s ({self.window_s:g}), "
                "so that more than two windows would meet"
            )
        return self

    @property
    @abstractmethod
    def models(self) -> Mapping[Task, str]:
        """The checkpoint of each annotation that is asked for."""

    def output_settings(self) -> dict[str, Any]:
        """The settings that decide what is written, without the models' places (digests stand for them)."""
        return {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("changes_output")
        }

    def public(self) -> dict[str, Any]:
        """The whole spec for metadata and summaries: never a credential."""
        return self.model_dump(mode="json", exclude={"storage": {"key", "secret", "token"}})


class TranscriptOptions(BaseModel):
    """How logits become words."""

    # Of these two files the contents belong to the table, not the places: see `resources.DecodingFiles`.
    lexicon: str | None = Field(
        None,
        description="beam search among these words only: a file with a word and its tokens in each line",
    )
    language_model: str | None = Field(
        None,
        description="n-gram language model for beam search: an ARPA file or a KenLM binary",
    )
    lm_weight: float = Field(2.0, description="weight of the language model", json_schema_extra=_OUTPUT)
    word_score: float = Field(
        0.0, description="added for each word in beam search", json_schema_extra=_OUTPUT
    )
    beam_size: int | None = Field(
        None,
        ge=1,
        description="hypotheses that beam search keeps; unset: 50 where a lexicon, a language model or nbest "
        "asks for beam search, else greedy decoding",
        json_schema_extra=_OUTPUT,
    )
    nbest: int = Field(
        1,
        ge=1,
        description="write so many readings of each clip, with their scores",
        json_schema_extra=_OUTPUT,
    )
    align: bool = Field(
        False,
        description="align the reference text (ref_text) too: when each of its words is said, and how well "
        "text and audio agree",
        json_schema_extra=_OUTPUT,
    )

    @model_validator(mode="after")
    def _readings_come_from_the_beam(self) -> TranscriptOptions:
        if self.beam is not None and self.nbest > self.beam:
            raise ValueError(f"nbest: {self.nbest} readings cannot come from a beam of {self.beam}")
        return self

    @property
    def beam(self) -> int | None:
        """Hypotheses that beam search keeps; None: decoding is greedy."""
        asked = self.lexicon or self.language_model or self.nbest > 1
        return self.beam_size or (50 if asked else None)


class LabelOptions(BaseModel):
    """How class scores become labels."""

    top_k: int = Field(
        5, ge=1, description="write the best so many labels of each clip", json_schema_extra=_OUTPUT
    )


class DiarizationOptions(BaseModel):
    """How frame probabilities become speaker segments."""

    onset: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="a speaker begins where the probability is above this",
        json_schema_extra=_OUTPUT,
    )
    offset: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="and goes on until it is no longer above this, which is at most the onset",
        json_schema_extra=_OUTPUT,
    )
    min_on_s: float = Field(0.0, ge=0, description="shorter segments are dropped", json_schema_extra=_OUTPUT)
    min_off_s: float = Field(
        0.0, ge=0, description="shorter pauses of a speaker are filled", json_schema_extra=_OUTPUT
    )
    frame_probabilities: bool = Field(
        True, description="write each speaker's probability in each frame", json_schema_extra=_OUTPUT
    )
    reference_rttm: str | None = Field(
        None,
        description="RTTM file of the true speakers, by clip_id, its key or its file name: the summary then "
        "gives the diarization error rate",
    )

    @model_validator(mode="after")
    def _hysteresis(self) -> DiarizationOptions:
        if self.offset > self.onset:
            raise ValueError(f"offset: {self.offset:g} is above the onset ({self.onset:g})")
        return self


Options = TypeVar("Options", bound=BaseModel)


def options(spec: BaseModel, kind: type[Options]) -> Options:
    """The options of one annotation that a job's spec holds."""
    if not isinstance(spec, kind):
        raise TypeError(f"{type(spec).__name__} has no {kind.__name__}")
    return spec


def _model(task: str) -> Any:
    return Field(min_length=1, description=f"checkpoint that {task}: {_CHECKPOINT}")


def _optional_model(task: str) -> Any:
    return Field(None, min_length=1, description=f"checkpoint that {task}: {_CHECKPOINT}")


class TranscribeSpec(TranscriptOptions, JobSpec):
    """Transcribe a speech corpus: audio shards in, a Parquet table of transcripts out."""

    model: str = _model("transcribes")

    @property
    def models(self) -> Mapping[Task, str]:
        return {Task.TRANSCRIBE: self.model}


class ClassifySpec(LabelOptions, JobSpec):
    """Label the clips of a speech corpus: audio shards in, a Parquet table of labels with scores out."""

    model: str = _model("classifies")

    @property
    def models(self) -> Mapping[Task, str]:
        return {Task.CLASSIFY: self.model}


class DiarizeSpec(DiarizationOptions, JobSpec):
    """Find who speaks when: audio shards in, a Parquet table of speaker segments and frame activity out."""

    model: str = _model("diarizes")

    @property
    def models(self) -> Mapping[Task, str]:
        return {Task.DIARIZE: self.model}


class EmbedSpec(JobSpec):
    """Embed the voices of a speech corpus: audio shards in, a Parquet table of x-vectors out."""

    model: str = _model("embeds (x-vectors)")

    @property
    def models(self) -> Mapping[Task, str]:
        return {Task.EMBED: self.model}


class AnnotateSpec(TranscriptOptions, LabelOptions, DiarizationOptions, JobSpec):
    """Write any annotations in one run: checkpoints that share a backbone share its pass over the audio."""

    transcribe: str | None = _optional_model("transcribes")
    classify: str | None = _optional_model("classifies")
    diarize: str | None = _optional_model("diarizes")
    embed: str | None = _optional_model("embeds (x-vectors)")

    @model_validator(mode="after")
    def _something_to_do(self) -> AnnotateSpec:
        if not self.models:
            raise ValueError(f"nothing to annotate: give any of {', '.join(f'--{task}' for task in Task)}")
        return self

    @property
    def models(self) -> Mapping[Task, str]:
        return {task: model for task in Task if (model := getattr(self, task)) is not None}
