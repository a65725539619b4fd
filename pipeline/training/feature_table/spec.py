"""What the making of a feature table is told."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.spec.parts import InputSpec
from pipeline.spec.run import RunSpec
from pipeline.tasks.base import CHANGES_OUTPUT
from pipeline.training.feature_table.schema import FEATURES


class FeatureInputSpec(InputSpec):
    """What to read, and how fast."""

    max_duration_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="turn clips longer than this many seconds, as recorded, into error rows (code too_long)",
        json_schema_extra=CHANGES_OUTPUT,
    )
    speed: float = Field(
        1.0,
        ge=0.1,
        le=10,
        description="how many times as fast the recordings are played; pitch moves with it",
        json_schema_extra=CHANGES_OUTPUT,
    )


class FeatureTableSpec(RunSpec):
    """Make or extend a feature table: audio shards in, one row per clip out, at one speed.

    Keyword arguments are flat: `FeatureTableSpec(input=["corpus"], output="features/train", speed=0.9)`.
    """

    corpus: FeatureInputSpec

    column_names: ClassVar[frozenset[str]] = frozenset(FEATURES)

    @property
    def makes(self) -> tuple[str, ...]:
        return ("features",)
