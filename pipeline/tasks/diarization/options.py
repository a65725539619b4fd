"""The options of diarization."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.tasks.base import CHANGES_OUTPUT


class DiarizationOptions(BaseModel):
    """How frame probabilities become speaker segments."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, title="diarization")

    onset: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="start a speaker's segment where the probability rises above this",
        json_schema_extra=CHANGES_OUTPUT,
    )
    offset: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="end the segment where the probability falls to this or below; at most the onset",
        json_schema_extra=CHANGES_OUTPUT,
    )
    min_on_s: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="drop segments shorter than this many seconds",
        json_schema_extra=CHANGES_OUTPUT,
    )
    min_off_s: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="fill pauses of a speaker shorter than this many seconds",
        json_schema_extra=CHANGES_OUTPUT,
    )
    frame_probabilities: bool = Field(
        True,
        description="write the probability of each speaker in each frame",
        json_schema_extra=CHANGES_OUTPUT,
    )
    reference_rttm: str | None = Field(
        None,
        description="RTTM file with the true speakers of clips, named by clip_id, key or file name; the "
        "summary then reports the diarization error rate",
    )

    @model_validator(mode="after")
    def _hysteresis(self) -> DiarizationOptions:
        if self.offset > self.onset:
            raise ValueError(f"offset: {self.offset:g} is above the onset ({self.onset:g})")
        return self
