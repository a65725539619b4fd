"""Decoded audio in tables: arrays of samples with their rate, as `datasets` gives them, made WAV files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from pipeline.errors import ClipError, Code, Stage

ARRAY, RATE = "array", "sampling_rate"


def is_decoded(type: pa.DataType) -> bool:
    """A struct with an `array` of samples, or one for each channel, and a `sampling_rate`."""
    if not pa.types.is_struct(type) or min(type.get_field_index(name) for name in (ARRAY, RATE)) < 0:
        return False
    samples = _items(type.field(ARRAY).type)
    samples = _items(samples) or samples
    return pa.types.is_integer(type.field(RATE).type) and (
        samples is not None and (pa.types.is_floating(samples) or pa.types.is_integer(samples))
    )


def _items(type: pa.DataType | None) -> pa.DataType | None:
    if type is None:
        return None
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    return type.value_type if any(is_list(type) for is_list in lists) else None


def encoded(column: pa.Array, errors: list[dict[str, str] | None]) -> pa.Array:
    """Each value as the bytes of a WAV file, float32; what is no audio has its error, and null."""
    files = []
    for row, scalar in enumerate(column):
        try:
            files.append(_wav(scalar))
        except Exception as problem:  # what a damaged table holds there may be anything
            error = ClipError(Stage.READ, Code.BAD_RECORD, f"the row's `{ARRAY}` is no audio: {problem}")
            errors[row] = error.as_row()
            files.append(None)
    return pa.array(files, pa.large_binary())


def _wav(scalar: Any) -> bytes | None:
    if not scalar.is_valid or not scalar[ARRAY].is_valid:
        return None
    values, rate = scalar[ARRAY].values, scalar[RATE].as_py()
    if rate is None:
        raise ValueError(f"`{RATE}` is null")
    # Of several channels each is a list.
    channels: Sequence[Any] = [channel.values for channel in values] if _items(values.type) else [values]
    samples = np.stack([np.asarray(channel) for channel in channels], axis=1)
    if samples.dtype.kind == "i":
        samples = samples / np.float32(-float(np.iinfo(samples.dtype).min))
    file = io.BytesIO()
    soundfile.write(file, samples.astype(np.float32), rate, format="WAV", subtype="FLOAT")
    return file.getvalue()
