"""Subtitles as players open them, with FFmpeg's demuxers: beside their recording, and of silence."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from pipeline.export.job import export
from pipeline.export.spec import ExportSpec
from tests.pipeline.export.tables import clip, words, write

ROWS = [
    clip("in/talk.wav#talk", 2.0, text="hello", words=words(("hello", 0.5, 1.0))),
    clip("in/talk.flac#talk", 2.0, text="bye", words=words(("bye", 0.5, 1.0))),
    clip("in/silence.wav#silence", 3.0, text="", words=[]),
]


def cues(file: Path) -> list[tuple[int, int, str]]:
    """Start, duration and text of each packet, in the demuxer's own units."""
    with av.open(str(file)) as container:
        (stream,) = container.streams.subtitles
        return [
            (packet.pts, packet.duration, bytes(packet).decode())
            for packet in container.demux(stream)
            if packet.size
        ]


@pytest.mark.parametrize("format", ["srt", "vtt"])
@pytest.mark.parametrize("per_clip", [True, False])
def test_players_open_them(tmp_path: Path, format: str, per_clip: bool) -> None:
    table = write(tmp_path / "table", ROWS)
    output = tmp_path / ("out" if per_clip else f"all.{format}")
    export(ExportSpec(table=str(table), format=format, output=str(output), per_clip=per_clip))
    if not per_clip:
        assert cues(output) == [(500, 500, "hello"), (2500, 500, "bye")]
        return
    found = {file.relative_to(output).as_posix(): cues(file) for file in output.rglob("*.*")}
    assert found == {
        f"in/talk.{format}": [(500, 500, "hello")],
        f"in/talk.flac.{format}": [(500, 500, "bye")],
        f"in/silence.{format}": [],
    }


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_a_table_of_silence(tmp_path: Path, format: str) -> None:
    table = write(tmp_path / "table", ROWS[2:])
    output = tmp_path / f"all.{format}"
    export(ExportSpec(table=str(table), format=format, output=str(output), per_clip=False))
    assert cues(output) == []
