"""The options of a report."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from pipeline.storage import PublicOptions, StorageOptions

# Groups of the help.
_INPUT: dict[str, Any] = {"group": "input"}
_OUTPUT: dict[str, Any] = {"group": "output"}
_MANY = 2**31 - 1


class ReportSpec(PublicOptions):
    """Show an output table on one page with charts, audio and transcripts, which needs no server."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    table: str = Field(
        min_length=1,
        description="output of a job: its directory, a glob or one Parquet file; may be s3://",
        json_schema_extra=_INPUT,
    )
    output: str = Field(
        min_length=1,
        description="HTML file to write; replaces that of an earlier report; may be s3://",
        json_schema_extra=_OUTPUT,
    )
    speakers: str | None = Field(
        None,
        min_length=1,
        description="what jobs/speakers.py wrote of the table: its directory, or the Parquet file in it",
        json_schema_extra=_INPUT,
    )
    clips: int = Field(
        120,
        ge=1,
        le=2_000,
        description="maximum number of clips in the page's list: those worst in some way, and random ones",
        json_schema_extra=_OUTPUT,
    )
    audio_mb: float = Field(
        16.0,
        ge=0,
        le=1_000,
        description="maximum megabytes of audio inside the page, about 6 minutes each; other clips have a "
        "link where their audio is a file; 0: none is read",
        json_schema_extra=_OUTPUT,
    )
    seed: int = Field(
        0, ge=0, le=_MANY, description="chooses the random clips and voices", json_schema_extra=_OUTPUT
    )
    storage: StorageOptions = Field(default_factory=lambda: StorageOptions(), description="access to s3://")
