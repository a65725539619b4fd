"""What can go wrong, in two kinds: a job that cannot run or go on, and a clip that cannot be annotated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class JobError(Exception):
    """The job cannot run as told; the message says what is wrong, where, and what to do."""


class QualityError(JobError):
    """Too much of the data cannot be used: status 3, as with too many error rows."""


class TableInUseError(JobError):
    """Another job works on the table; the message says who, and since when."""


class BrokenOffError(JobError):
    """The job ended in the middle; what it wrote counts, and the same command goes on.

    Args:
        reason: why, without a full stop.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the job broke off: {reason}. Run the same command again: it goes on from here.")


class DeviceLostError(Exception):
    """The device no longer works for this process; for another it may."""


class Stage(StrEnum):
    """Where on its way a clip failed."""

    READ = "read"
    DECODE = "decode"
    FEATURIZE = "featurize"
    ANNOTATE = "annotate"


class Code(StrEnum):
    """Why a clip has no annotation: the fixed list of `error.code` (documented in docs/errors.md)."""

    BROKEN_SHARD = "broken_shard"
    BAD_RECORD = "bad_record"
    NO_AUDIO = "no_audio"
    NOT_FOUND = "not_found"
    UNREADABLE = "unreadable"
    NOT_A_FILE = "not_a_file"
    UNDELIVERED = "undelivered"
    EMPTY = "empty"
    UNDECODABLE = "undecodable"
    TRUNCATED = "truncated"
    BAD_SAMPLE_RATE = "bad_sample_rate"
    NON_FINITE = "non_finite"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    OUT_OF_MEMORY = "out_of_memory"
    MODEL_FAILED = "model_failed"


@dataclass(frozen=True)
class ClipError:
    """One clip's error: the `error` column of the output."""

    stage: Stage
    code: Code
    message: str

    def as_row(self) -> dict[str, str]:
        return {"stage": self.stage.value, "code": self.code.value, "message": self.message}


class ClipFailedError(Exception):
    """Raised inside a stage for one clip; the stage turns it into the clip's error row."""

    def __init__(self, stage: Stage, code: Code, message: str) -> None:
        super().__init__(message)
        self.error = ClipError(stage, code, message)
