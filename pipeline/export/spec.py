"""What an export is told."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.storage import StorageOptions


class ExportSpec(BaseModel):
    """Write an output table as files that other tools read: RTTM, CTM, SRT, WebVTT, JSONL, TextGrid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(
        min_length=1, description="output of a job: its directory, a glob or one Parquet file; may be s3://"
    )
    format: Literal["rttm", "ctm", "srt", "vtt", "jsonl", "textgrid"] = Field(description="what to write")
    output: str = Field(
        min_length=1, description="file to write, or directory where each clip has its own; may be s3://"
    )
    per_clip: bool | None = Field(
        None,
        description="one file per clip; unset: one file for rttm, ctm and jsonl, one per clip for srt, vtt "
        "and textgrid",
    )
    reference: bool = Field(
        False, description="the words of the aligned reference text (aligned_words), not the transcript's"
    )
    embeddings: bool = Field(False, description="write the embeddings too (jsonl)")
    storage: StorageOptions = Field(default_factory=lambda: StorageOptions(), description="access to s3://")

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> ExportSpec:
        if self.embeddings and self.format != "jsonl":
            raise ValueError(f"embeddings: {self.format} has no place for them; use format jsonl")
        if self.reference and self.format == "rttm":
            raise ValueError("reference: rttm holds speakers, no words")
        return self
