"""The tables between the stages and the one at the end, in one place (docs/table.md says it in words)."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

ERROR = pa.struct([("stage", pa.string()), ("code", pa.string()), ("message", pa.string())])
WORD = pa.struct(
    [("word", pa.string()), ("start_s", pa.float32()), ("end_s", pa.float32()), ("confidence", pa.float32())]
)

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
# What the featurize stage puts in the place of the audio. `features`: (n, 160) of the frames that windows
# look at, laid end to end; `frames`: of the whole recording, its half-filled last one among them, which
# `num_valid` leaves out; `windows`: see `pipeline.features.windows.Window`; none where nothing is heard.
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
CLIP_COLUMNS: dict[str, pa.DataType] = {
    "clip_id": pa.string(),
    "shard": pa.string(),
    "duration_s": pa.float64(),
    "sample_rate": pa.int32(),
    "channels": pa.int32(),
    "error": ERROR,
}
TRANSCRIPT_COLUMNS: dict[str, pa.DataType] = {
    "text": pa.string(),
    "text_confidence": pa.float32(),
    "words": pa.list_(WORD),
}
NBEST_COLUMNS: dict[str, pa.DataType] = {
    "nbest": pa.list_(pa.struct([("text", pa.string()), ("score", pa.float32())])),
}
ALIGNMENT_COLUMNS: dict[str, pa.DataType] = {
    "aligned_words": pa.list_(WORD),
    "alignment_score": pa.float32(),
}
LABEL_COLUMNS: dict[str, pa.DataType] = {
    "label": pa.string(),
    "label_score": pa.float32(),
    "labels": pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())])),
}
DIARIZATION_COLUMNS: dict[str, pa.DataType] = {
    "segments": pa.list_(
        pa.struct([("speaker", pa.string()), ("start_s", pa.float32()), ("end_s", pa.float32())])
    ),
    "frame_activity": pa.list_(pa.uint8()),
}
PROBABILITY_COLUMNS: dict[str, pa.DataType] = {"frame_probabilities": pa.list_(pa.list_(pa.float32()))}
COST_COLUMNS: dict[str, pa.DataType] = {"encoder_s": pa.float32()}


def embedding_columns(width: int) -> dict[str, pa.DataType]:
    return {"embedding": pa.list_(pa.float32(), width), "embedding_norm": pa.float32()}


ANNOTATIONS = frozenset(
    {
        *TRANSCRIPT_COLUMNS,
        *NBEST_COLUMNS,
        *ALIGNMENT_COLUMNS,
        *LABEL_COLUMNS,
        *DIARIZATION_COLUMNS,
        *PROBABILITY_COLUMNS,
        *embedding_columns(1),
    }
)
# Every name an output may give a column: carried columns of these names are renamed to ref_<name>.
RESERVED = ANNOTATIONS | {*CLIP_COLUMNS, *FEATURE_COLUMNS, *READ_COLUMNS, *COST_COLUMNS, "extra"}
# Values of input columns that the run's table has no column for, as one JSON object.
EXTRA = "extra"


def read_schema(carried: pa.Schema) -> pa.Schema:
    return pa.schema([*READ_COLUMNS.items(), *carried, (EXTRA, pa.string())])


def feature_schema(carried: pa.Schema) -> pa.Schema:
    return pa.schema([*FEATURE_COLUMNS.items(), *carried, (EXTRA, pa.string())])


def output_schema(carried: pa.Schema, annotations: Mapping[str, pa.DataType]) -> pa.Schema:
    """The written table: clip columns, carried columns, then the annotations of the heads that ran."""
    return pa.schema(
        [
            *CLIP_COLUMNS.items(),
            *carried,
            (EXTRA, pa.string()),
            *annotations.items(),
            *COST_COLUMNS.items(),
        ]
    )


def column_name(name: str) -> str:
    """The output's name of an input column: `text` is the transcript, so the input's is `ref_text`."""
    return f"ref_{name}" if name in RESERVED else name
