"""What can go wrong, in two kinds: a job that must not start, and a clip that could not be annotated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class JobError(Exception):
    """The job cannot run as told; the message says what is wrong, where, and what to do."""


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
    """The device answers no longer to this process; another may find it well."""


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


MEANING: dict[Code, str] = {
    Code.BROKEN_SHARD: "a shard, or a part of it, could not be read; its readable clips have their own rows",
    Code.BAD_RECORD: "a manifest's record, or what a row says of its audio, is not what its format asks for",
    Code.NO_AUDIO: "the record holds no audio",
    Code.NOT_FOUND: "the audio file that a manifest or a row names does not exist",
    Code.UNREADABLE: "storage refused or failed to deliver the audio, or it is on a web server that "
    "`--allow-hosts` does not name; the next run tries again",
    Code.NOT_A_FILE: "what a manifest or a row names is not read: a folder, a device, a pipe, a socket, a "
    "file of the kernel, an unknown protocol, a URI with a secret of S3",
    Code.UNDELIVERED: "storage refused or failed to deliver the shard: no row of the table says so, the "
    "summary does, and the next run reads the shard again",
    Code.EMPTY: "no bytes, or audio without a single sample",
    Code.UNDECODABLE: "no decoder accepts the bytes, or decoding them ended its process twice",
    Code.TRUNCATED: "the audio lacks what its header or its framing says there is",
    Code.BAD_SAMPLE_RATE: "the stored sample rate is outside 1 kHz to 768 kHz",
    Code.NON_FINITE: "samples that are not finite numbers (NaN or infinity)",
    Code.TOO_SHORT: "shorter than the shortest clip the features are defined for",
    Code.TOO_LONG: "longer than `max_duration_s`",
    Code.OUT_OF_MEMORY: "the clip alone does not fit the device's memory, or its temporary file the disk",
    Code.MODEL_FAILED: "the model or the detector (`--vad`) failed on the clip, gave values without sense, "
    "or the clip ended the model's process twice",
}


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
