"""NeMo's manifest: a JSON object a clip, which names its audio file."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.export.audio_files import NO_FILE, audio_file, columns_of_audio, own_columns, own_values
from pipeline.export.document import Content, Document, identity, register
from pipeline.export.formats.lists.jsonl import json_line
from pipeline.export.intervals import length_s
from pipeline.export.table import Row, Table

# Beside an `offset` NeMo's adapter for Lhotse takes a sampling rate for that of a file as long as the clip.
_LEFT_OUT = {"sampling_rate", "ref_sampling_rate", "ref_sample_rate"}


@register
class Nemo(Document):
    """`text` is what was said, as far as the table knows it, and `pred_text` what was heard."""

    name = "nemo"
    extension = "json"
    one_per_clip = False

    @classmethod
    def refusal(cls, content: Content) -> str | None:
        always = "reference: nemo has it in `text` wherever there is one" if content.reference else None
        return super().refusal(content) or always

    @classmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        held = [name for name in ("ref_text", "text", "label") if name in table.columns]
        return identity("duration_s", *held, *columns_of_audio(table)) | own_columns(table)

    @classmethod
    def missing(cls, row: Row) -> str | None:
        if not length_s(row):
            return "without duration"
        return NO_FILE if audio_file(row) is None else None

    def add(self, row: Row) -> None:
        file = audio_file(row)
        assert file is not None  # `missing` says so
        values = {
            "audio_filepath": file.uri,
            "offset": file.start_s,
            "duration": length_s(row),
            "text": row["ref_text"] if "ref_text" in row else row.get("text"),
            "pred_text": row.get("text"),
            "label": row.get("label"),
        }
        own = {name: value for name, value in own_values(row).items() if name not in {*values, *_LEFT_OUT}}
        values = {**values, **own, "clip_id": row["clip_id"]}
        self._write(json_line({name: value for name, value in values.items() if value is not None}))
