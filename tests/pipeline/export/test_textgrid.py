"""TextGrids, read by a parser that takes nothing but Praat's long text format."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.export.job import export
from pipeline.export.spec import ExportSpec
from pipeline.schema import output_schema
from pipeline.tasks.diarize import DIARIZATION_COLUMNS
from pipeline.tasks.transcribe import TRANSCRIPT_COLUMNS

Tier = tuple[str, list[tuple[float, float, str]]]


class Reader:
    """A strict reader: every line as Praat writes it, every count right, every tier without a gap."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def read(self) -> tuple[float, list[Tier]]:
        self._line('File type = "ooTextFile"')
        self._line('Object class = "TextGrid"')
        self._line("")
        assert self._number("xmin") == 0
        end = self._number("xmax")
        assert end > 0
        self._line("tiers? <exists>")
        count = self._number("size")
        self._line("item []:")
        tiers = [self._tier(number, end) for number in range(1, int(count) + 1)]
        assert self._at == len(self._text)
        return end, tiers

    def _tier(self, number: int, end: float) -> Tier:
        self._line(f"    item [{number}]:")
        self._line('        class = "IntervalTier"')
        name = self._string("        name")
        assert self._number("        xmin") == 0
        assert self._number("        xmax") == end
        size = int(self._number("        intervals: size"))
        assert size >= 1
        intervals = []
        for index in range(1, size + 1):
            self._line(f"        intervals [{index}]:")
            start, stop = self._number("            xmin"), self._number("            xmax")
            assert start < stop
            intervals.append((start, stop, self._string("            text")))
        assert (intervals[0][0], intervals[-1][1]) == (0, end)
        assert all(one[1] == other[0] for one, other in itertools.pairwise(intervals))
        return name, intervals

    def _line(self, wanted: str) -> None:
        assert self._text.startswith(wanted + "\n", self._at), self._text[self._at :][:200]
        self._at += len(wanted) + 1

    def _number(self, name: str) -> float:
        line = self._text[self._at : self._text.index("\n", self._at)]
        assert line.startswith(f"{name} = "), line
        self._at += len(line) + 1
        return float(line.removeprefix(f"{name} = "))

    def _string(self, name: str) -> str:
        """In quotes, doubled where they belong to the text."""
        assert self._text.startswith(f'{name} = "', self._at)
        self._at += len(name) + 4
        found = ""
        while True:
            stop = self._text.index('"', self._at)
            found += self._text[self._at : stop]
            self._at = stop + 1
            if not self._text.startswith('"', self._at):
                break
            found, self._at = found + '"', self._at + 1
        assert self._text[self._at] == "\n"
        self._at += 1
        return found


def words(*spoken: tuple[str, float, float]) -> list[dict[str, Any]]:
    return [{"word": w, "start_s": s, "end_s": e, "confidence": 0.5} for w, s, e in spoken]


def turns(*spoken: tuple[str, float, float]) -> list[dict[str, Any]]:
    return [{"speaker": w, "start_s": s, "end_s": e} for w, s, e in spoken]


def grids(
    tmp_path: Path, rows: list[dict[str, Any]], *, per_clip: bool
) -> dict[str, tuple[float, list[Tier]]]:
    schema = output_schema(pa.schema([]), TRANSCRIPT_COLUMNS | DIARIZATION_COLUMNS)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "table.parquet")
    output = tmp_path / ("clips" if per_clip else "all.TextGrid")
    export(
        ExportSpec(
            table=str(tmp_path / "table.parquet"),
            format="textgrid",
            output=str(output),
            per_clip=per_clip,
            overwrite=True,
        )
    )
    files = sorted(output.rglob("*.TextGrid")) if per_clip else [output]
    return {file.stem: Reader(file.read_bytes().decode()).read() for file in files}


ROWS: list[dict[str, Any]] = [
    {
        "clip_id": "a.tar#one",
        "duration_s": 2.0,
        "words": words(("say", 0.0, 0.3), ('"hi"', 0.3, 0.5), ("now", 1.0, 2.02)),
        "segments": turns(("speaker_1", 0.5, 1.0), ("speaker_0", 0.0, 0.75), ("speaker_1", 0.9, 1.25)),
    },
    {"clip_id": "a.tar#two", "duration_s": 1.5, "words": [], "segments": []},
    {"clip_id": "a.tar#bad", "error": {"stage": "decode", "code": "empty", "message": "no bytes"}},
    {"clip_id": "b.tar#three", "duration_s": 1.0, "words": words(("bye", 0.2, 0.4)), "segments": None},
]


def test_a_grid_per_clip(tmp_path: Path) -> None:
    found = grids(tmp_path, ROWS, per_clip=True)
    assert sorted(found) == ["one", "three", "two"]
    assert found["one"] == (
        2.0,
        [
            ("words", [(0, 0.3, "say"), (0.3, 0.5, '"hi"'), (0.5, 1.0, ""), (1.0, 2.0, "now")]),
            ("speaker_0", [(0, 0.75, "speaker_0"), (0.75, 2.0, "")]),
            ("speaker_1", [(0, 0.5, ""), (0.5, 1.25, "speaker_1"), (1.25, 2.0, "")]),
        ],
    )
    assert found["two"] == (1.5, [("words", [(0, 1.5, "")])])
    assert found["three"] == (1.0, [("words", [(0, 0.2, ""), (0.2, 0.4, "bye"), (0.4, 1.0, "")])])


def test_all_clips_on_one_timeline(tmp_path: Path) -> None:
    assert grids(tmp_path, ROWS, per_clip=False)["all"] == (
        4.5,
        [
            ("clips", [(0, 2.0, "a.tar#one"), (2.0, 3.5, "a.tar#two"), (3.5, 4.5, "b.tar#three")]),
            (
                "words",
                [
                    (0, 0.3, "say"),
                    (0.3, 0.5, '"hi"'),
                    (0.5, 1.0, ""),
                    (1.0, 2.0, "now"),
                    (2.0, 3.7, ""),
                    (3.7, 3.9, "bye"),
                    (3.9, 4.5, ""),
                ],
            ),
            ("speaker_0", [(0, 0.75, "speaker_0"), (0.75, 4.5, "")]),
            ("speaker_1", [(0, 0.5, ""), (0.5, 1.25, "speaker_1"), (1.25, 4.5, "")]),
        ],
    )


TIMES = st.floats(0, 6, width=32)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6) | st.just('"')


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0.002, 5),
            st.lists(st.tuples(TEXTS, TIMES, TIMES), max_size=8),
            st.lists(st.tuples(st.sampled_from(["a", 'b"']), TIMES, TIMES), max_size=8),
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_any_words_make_a_sound_grid_and_none_is_lost(
    tmp_path: Path, clips: list[tuple[float, list[Any], list[Any]]], per_clip: bool
) -> None:
    rows = [
        {"clip_id": f"{n}#x", "duration_s": duration, "words": words(*spoken), "segments": turns(*spoke)}
        for n, (duration, spoken, spoke) in enumerate(clips)
    ]
    for file in tmp_path.rglob("*.TextGrid"):
        file.unlink()
    found = grids(tmp_path, rows, per_clip=per_clip)
    if per_clip:
        (tmp_path / "clips").rename(tmp_path / "done")
        _remove(tmp_path / "done")
        return
    _, tiers = found["all"]
    said = [
        word
        for _, spoken, _ in clips
        for text, _, _ in sorted(spoken, key=lambda word: (word[1], word[2]))
        for word in text.split()
    ]
    assert [word for _, _, text in dict(tiers)["words"] for word in text.split()] == said
    assert sorted(name for name, _ in tiers[2:]) == sorted(
        {turn[0] for _, _, spoke in clips for turn in spoke}
    )


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
