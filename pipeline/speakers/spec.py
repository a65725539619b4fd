"""The options of the search for speakers."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from pipeline.storage import PublicOptions, StorageOptions

# Groups of the help.
_INPUT: dict[str, Any] = {"group": "input"}
_OUTPUT: dict[str, Any] = {"group": "output"}


class SpeakersSpec(PublicOptions):
    """Group the x-vectors of a table into speakers, and score a list of verification trials."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    table: str = Field(
        min_length=1,
        description="table with x-vectors: a directory, a glob or a Parquet file, local or s3://",
        json_schema_extra=_INPUT,
    )
    output: str | None = Field(
        None,
        min_length=1,
        description="directory or s3:// URI for the speaker of each clip; replaces those of an earlier run",
        json_schema_extra=_OUTPUT,
    )
    threshold: float = Field(
        0.7,
        gt=-1,
        lt=1,
        description="least mean cosine similarity between the clips of two groups that become one speaker; "
        "depends on the checkpoint, and a trial list gives it (the threshold of the EER)",
        json_schema_extra={"group": "speakers"},
    )
    trials: str | None = Field(
        None,
        min_length=1,
        description="trial list: lines '1|0 enroll test', or 'enroll test target|nontarget'; clips go by "
        "clip_id, key or path",
        json_schema_extra=_INPUT,
    )
    scores: str | None = Field(
        None, min_length=1, description="file to write the scored trials to", json_schema_extra=_OUTPUT
    )
    storage: StorageOptions = Field(default_factory=lambda: StorageOptions(), description="access to s3://")

    @model_validator(mode="after")
    def _something_to_do(self) -> SpeakersSpec:
        if self.output is None and self.trials is None:
            raise ValueError(
                "nothing to do: give --output to find speakers, --trials to score trials, or both"
            )
        if self.scores is not None and self.trials is None:
            raise ValueError("scores: there is nothing to score without --trials")
        return self
