"""Which columns of a table of Arrow hold audio, and which pass through."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.corpus.readers.parquet.arrays import is_decoded
from pipeline.storage import StorageError

AUDIO_NAMES = ("audio", "bytes", "audio_bytes", "wav", "flac", "mp3")
_SOUND_FILE = r"(?s)^(RIFF....WAVE|RF64|FORM....AIF|fLaC|OggS|ID3|caff|\.snd|....ftyp(M4|mp4|iso|3g))"
_LOOKED_AT = 8  # values of a binary column, to know whether they are sound files
FILE_NAME = "file_name"  # of `audiofolder` of `datasets`
First = Callable[[Sequence[str]], pa.RecordBatch | None]


@dataclass(frozen=True)
class Columns:
    """The columns of a file, by index.

    Attributes:
        audio: what is annotated; None where there is none.
        others: what passes through.
        left_out: further audio, which the table is not to hold a second time.
    """

    audio: int | None
    others: Sequence[int]
    left_out: Sequence[int]


def columns_of(schema: pa.Schema, first: First = lambda names: None) -> Columns:
    """The audio is a struct with `bytes` (Hugging Face datasets), else a binary column; else decoded, a
    struct with `array` and `sampling_rate`; else the text column `file_name`, which passes through as well.

    Of several structs it is one that `datasets` calls audio, else the one named `audio`, else the first; of
    several binary columns the first of `AUDIO_NAMES`, else the first that holds sound files.

    Args:
        first: the first rows of these columns, or None.
    """
    names = [name.lower() for name in schema.names]
    structs = [index for index, type in enumerate(schema.types) if is_audio_struct(type)]
    binary = [index for index, type in enumerate(schema.types) if is_binary(type)]
    named = [index for name in AUDIO_NAMES for index in binary if names[index] == name]
    doubtful = [index for index in binary if index not in named] if structs or len(binary) > 1 else []
    sounding = _sounding([schema.names[index] for index in doubtful], doubtful, first)
    cast = _cast_to_audio(schema)

    def rank(index: int) -> tuple[bool, ...]:
        return schema.names[index] not in cast, schema.names[index] != "audio", names[index] != "audio"

    found = sorted(structs, key=rank)
    found += [*named, *sounding, *(binary if len(binary) == 1 else [])]
    found += sorted((index for index, type in enumerate(schema.types) if is_decoded(type)), key=rank)
    texts = (index for index, type in enumerate(schema.types) if is_text(type))
    found += [index for index in texts if schema.names[index] == FILE_NAME]
    audio = found[0] if found else None
    more = {index for index, type in enumerate(schema.types) if _holds_audio(type)} | {*named, *sounding}
    others = [
        index
        for index, type in enumerate(schema.types)
        if (index != audio and index not in more) or (index == audio and is_text(type))
    ]
    return Columns(audio, others, sorted(more - {audio}))


def _cast_to_audio(schema: pa.Schema) -> set[str]:
    """The columns that `datasets` says are audio."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name for name, feature in features.items() if feature.get("_type") == "Audio"}
    except (ValueError, TypeError, AttributeError, KeyError):
        return set()


def is_text(type: pa.DataType) -> bool:
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_string_view(type))


def is_audio_struct(type: pa.DataType) -> bool:
    """The layout of Hugging Face; where every row has a path alone, its `bytes` may have no type."""
    if not pa.types.is_struct(type) or type.get_field_index("bytes") < 0:
        return False
    data = type.field("bytes").type
    return is_binary(data) or (pa.types.is_null(data) and has_path(type))


def has_path(type: pa.DataType) -> bool:
    return bool(pa.types.is_struct(type) and type.get_field_index("path") >= 0)


def is_binary(type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_binary_view(type))


def without_sound_files(column: pa.Array) -> pa.Array:
    return pc.if_else(_is_sound_file(column), None, column) if is_binary(column.type) else column


def _holds_audio(type: pa.DataType) -> bool:
    """In lists too."""
    items = () if pa.types.is_struct(type) else range(type.num_fields)
    return is_audio_struct(type) or any(_holds_audio(type.field(index).type) for index in items)


def first_rows(file: pq.ParquetFile) -> First:
    """Those of a Parquet file, for `columns_of`."""

    def first(names: Sequence[str]) -> pa.RecordBatch | None:
        if not file.num_row_groups or "." in "".join(names):
            return None
        try:
            found = next(file.iter_batches(_LOOKED_AT, [0], list(names), use_threads=False), None)
        except StorageError:
            raise
        except Exception:  # whatever Arrow makes of damage: reading the rows says it
            return None
        return found if found is not None and found.schema.names == list(names) else None

    return first


def _sounding(names: Sequence[str], binary: Sequence[int], first: First) -> list[int]:
    """Those of these columns of which one of the first values is a sound file."""
    rows = first(names) if binary else None
    if rows is None:
        return []
    found = [pc.any(_is_sound_file(column)).as_py() for column in rows.columns]
    return [index for index, sounds in zip(binary, found, strict=True) if sounds]


def _is_sound_file(column: pa.Array) -> pa.Array:
    """Which binary values begin as sound files do."""
    return pc.match_substring_regex(column.cast(pa.large_binary()), _SOUND_FILE)
