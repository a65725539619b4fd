"""The tables between the stages and the one at the end (docs/table.md says it in words).

What annotations add to them stands in the files of `pipeline.tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

ERROR = pa.struct([("stage", pa.string()), ("code", pa.string()), ("message", pa.string())])

# What the read stage hands on: identity, and the bytes of the audio or where they are.
READ_COLUMNS: dict[str, pa.DataType] = {
    "clip_id": pa.string(),
    "shard": pa.string(),
    "audio": pa.large_binary(),
    "source": pa.string(),
    "start_s": pa.float64(),
    "length_s": pa.float64(),
    "error": ERROR,
}
WINDOW = pa.struct([("start", pa.int32()), ("frames", pa.int32()), ("at", pa.int32())])
# What the featurize stage puts in the place of the audio. `features`: (n, width) of the frames that windows
# look at, laid end to end; `frames`: of the whole recording, with a last one that the audio fills only in
# part, which `num_valid` leaves out; `windows`: see `pipeline.features.windows.Window`; none where nothing is
# to be heard.
FEATURE_COLUMNS: dict[str, pa.DataType] = {
    "clip_id": pa.string(),
    "shard": pa.string(),
    "duration_s": pa.float64(),
    "sample_rate": pa.int32(),
    "channels": pa.int32(),
    "features": pa.large_binary(),
    "frames": pa.int32(),
    "num_valid": pa.int32(),
    "windows": pa.list_(WINDOW),
    "error": ERROR,
}
# Where a run keeps what the normalisation took away: (num_mel_bins,) each. Features times `log_mel_std` plus
# `log_mel_mean`, both for each fbank frame of a stacked one, are the log mel energies again.
STATISTICS_COLUMNS: dict[str, pa.DataType] = {
    "log_mel_mean": pa.list_(pa.float32()),
    "log_mel_std": pa.list_(pa.float32()),
}
CLIP_COLUMNS: dict[str, pa.DataType] = {
    "clip_id": pa.string(),
    "shard": pa.string(),
    "duration_s": pa.float64(),
    "sample_rate": pa.int32(),
    "channels": pa.int32(),
    "error": ERROR,
}
COST_COLUMNS: dict[str, pa.DataType] = {"encoder_s": pa.float32()}
# Values of input columns that the run's table has no column for, as one JSON object.
EXTRA = "extra"
OWN_NAMES = frozenset({*CLIP_COLUMNS, *FEATURE_COLUMNS, *READ_COLUMNS, *COST_COLUMNS, EXTRA})


def read_schema(passthrough: pa.Schema) -> pa.Schema:
    return pa.schema([*READ_COLUMNS.items(), *passthrough, (EXTRA, pa.string())])


def feature_schema(passthrough: pa.Schema, *, statistics: bool = False) -> pa.Schema:
    own = {**FEATURE_COLUMNS, **(STATISTICS_COLUMNS if statistics else {})}
    return pa.schema([*own.items(), *passthrough, (EXTRA, pa.string())])


def partial_schema(passthrough: pa.Schema, annotations: Mapping[str, pa.DataType]) -> pa.Schema:
    """Between two model stages: the features, and the annotations of the heads that ran so far."""
    return pa.schema([*feature_schema(passthrough), *annotations.items(), *COST_COLUMNS.items()])


def output_schema(passthrough: pa.Schema, annotations: Mapping[str, pa.DataType]) -> pa.Schema:
    """The written table: clip columns, passthrough columns, then the annotations of the heads that ran."""
    return pa.schema(
        [
            *CLIP_COLUMNS.items(),
            *passthrough,
            (EXTRA, pa.string()),
            *annotations.items(),
            *COST_COLUMNS.items(),
        ]
    )


def annotations_of(schema: pa.Schema) -> frozenset[str]:
    """The annotation columns of an `output_schema` or `partial_schema`: they follow `extra`."""
    return frozenset(schema.names[schema.names.index(EXTRA) + 1 :]) - COST_COLUMNS.keys()
