"""Lhotse's supervisions: a JSON object an utterance, with the times of its words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.export.audio_files import audio_file, columns_of_audio, own_columns, own_values
from pipeline.export.document import Content, Document, identity, register
from pipeline.export.formats.lists.jsonl import json_line
from pipeline.export.intervals import Timed, length_s, milliseconds, timed_parts
from pipeline.export.table import Row, Table

_LANGUAGES = ("language", "lang", "locale")


@register
class Lhotse(Document):
    """A supervision a clip, or, of a table without transcripts, one a speaker's turn."""

    name = "lhotse"
    extension = "jsonl.gz"
    one_per_clip = False

    @classmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        columns = identity("duration_s", "channels", *columns_of_audio(table)) | own_columns(table)
        if content.reference:
            table.require("aligned_words", purpose="lhotse of the reference")
            return columns | {"text": "ref_text", "words": "aligned_words"}
        table.require("text", "segments", purpose="lhotse")
        spoken = ("text", "words") if "text" in table.columns else ("segments",)
        return columns | {name: name for name in spoken}

    @classmethod
    def missing(cls, row: Row) -> str | None:
        if not length_s(row):
            return "without duration"
        if "segments" in row:
            return "without segments" if row["segments"] is None else None
        return None if isinstance(row["text"], str) else "without text"

    def add(self, row: Row) -> None:
        for supervision in _turns(row) if "segments" in row else [_utterance(row)]:
            self._write(json_line({name: held for name, held in supervision.items() if held is not None}))


def _utterance(row: Row) -> dict[str, Any]:
    own = own_values(row)
    language = next((own.pop(name) for name in _LANGUAGES if isinstance(own.get(name), str)), None)
    speaker = own.pop("speaker") if isinstance(own.get("speaker"), str) else None
    words = [
        [word.text, *_interval(row, word), word.confidence] for word in timed_parts(row["words"], "word")
    ]
    return {
        **_supervision(row, row["clip_id"], Timed(0.0, length_s(row), row["text"])),
        "text": row["text"],
        "language": language,
        "speaker": speaker,
        "custom": own or None,
        "alignment": {"word": words} if words else None,
    }


def _turns(row: Row) -> Iterator[dict[str, Any]]:
    for number, turn in enumerate(timed_parts(row["segments"], "speaker")):
        if _interval(row, turn)[1] > 0:  # Lhotse refuses others
            yield {**_supervision(row, f"{row['clip_id']}-{number}", turn), "speaker": turn.text}


def _supervision(row: Row, name: str, part: Timed) -> dict[str, Any]:
    """What every supervision has."""
    file = audio_file(row)
    start, duration = _interval(row, part)
    channels = row["channels"] or 1
    return {
        "id": name,
        "recording_id": row["clip_id"] if file is None else file.name,
        "start": start,
        "duration": duration,
        "channel": 0 if channels == 1 else list(range(channels)),
    }


def _interval(row: Row, part: Timed) -> tuple[float, float]:
    """Start in the recording, and duration, both in seconds; both ends are rounded to a millisecond."""
    file = audio_file(row)
    at = 0.0 if file is None else file.start_s or 0.0
    start, end = milliseconds(at + part.start_s), milliseconds(at + part.end_s)
    return start / 1000, max(0, end - start) / 1000
