"""The options of an export."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from pipeline.export.document import Content, Document
from pipeline.export.formats import FORMATS
from pipeline.storage import PublicOptions, StorageOptions

# Groups of the help.
_INPUT: dict[str, Any] = {"group": "input"}
_OUTPUT: dict[str, Any] = {"group": "output"}


def _from_formats(**functions: Any) -> Any:
    """What the command line asks for only when it needs it, since formats may be registered until then."""
    return functions


def _per_clip_help() -> str:
    documents = {name: kind for name, kind in FORMATS.items() if issubclass(kind, Document)}
    whole = _listed(name for name, kind in documents.items() if not kind.one_per_clip)
    single = _listed(name for name, kind in documents.items() if kind.one_per_clip)
    return f"one file per clip; unset: one file for {whole}, one per clip for {single}"


def _embeddings_help() -> str:
    holding = _listed(name for name, kind in FORMATS.items() if kind.holds_embeddings)
    return f"write the embeddings too ({holding})"


class ExportSpec(PublicOptions):
    """Write an output table as files that other tools read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(
        min_length=1,
        description="output of a job: its directory, a glob or one Parquet file; may be s3://",
        json_schema_extra=_INPUT,
    )
    format: str = Field(
        description="what to write",
        json_schema_extra=_OUTPUT | _from_formats(choices=lambda: list(FORMATS)),
    )
    output: str = Field(
        min_length=1,
        description="file to write, or directory where each clip has its own (delta: the table itself); "
        "may be s3://",
        json_schema_extra=_OUTPUT,
    )
    per_clip: bool | None = Field(
        None,
        description="one file per clip; unset: as the format does",
        json_schema_extra=_OUTPUT | _from_formats(help=_per_clip_help),
    )
    overwrite: bool = Field(
        False, description="replace files that are there already", json_schema_extra=_OUTPUT
    )
    reference: bool = Field(
        False,
        description="the words of the aligned reference text (aligned_words), not the transcript's",
        json_schema_extra=_OUTPUT,
    )
    embeddings: bool = Field(
        False,
        description="write the embeddings too",
        json_schema_extra=_OUTPUT | _from_formats(help=_embeddings_help),
    )
    storage: StorageOptions = Field(default_factory=lambda: StorageOptions(), description="access to s3://")

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in FORMATS:
            close = difflib.get_close_matches(name, FORMATS, n=1, cutoff=0.5)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ValueError(f"there is no format '{name}', but {_listed(FORMATS)}{hint}")
        return name

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> ExportSpec:
        kind = FORMATS[self.format]
        if refusal := kind.refusal(self.content):
            raise ValueError(refusal)
        if self.per_clip is not None and not issubclass(kind, Document):
            raise ValueError(f"per_clip: {self.format} writes no files of clips")
        return self

    @property
    def content(self) -> Content:
        return Content(self.reference, self.embeddings)


def _listed(names: Iterable[str]) -> str:
    """a, b and c."""
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last
