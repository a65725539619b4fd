"""Texts with line ends of every kind, control characters, quotes and arrows, read by readers of lines."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.export.document import Document
from pipeline.export.formats import FORMATS
from pipeline.export.job import export
from pipeline.export.spec import ExportSpec
from tests.pipeline.export.tables import clip, turns, words, write

LETTERS = '\n\r\u2028\u2029\x85\x0b\x0c\x1c\x00\x07\x1b\x9f"<&%# \xa0a1é\ufeff'
PIECES = ["\r\n", "\n\n", '""', "-->", "---->", "00:00:01,000 --> 00:00:02,000", ";;", "NOTE", "{\\an8}"]
# Together with "end" they are one cue.
TEXTS = st.lists(st.sampled_from(LETTERS) | st.sampled_from(PIECES), max_size=6).map(
    lambda p: "".join(p)[:60]
)
CLIPS = st.lists(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), min_size=1, max_size=3)


def exported(folder: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """What each format makes of these rows, in one file."""
    table = write(folder / "table", rows)
    found = {}
    for name in (name for name, kind in FORMATS.items() if issubclass(kind, Document)):
        spec = {"table": str(table), "format": name, "output": str(folder / name), "per_clip": False}
        export(ExportSpec(**spec, overwrite=True))
        found[name] = (folder / name).read_bytes().decode()
    return found


def shown(text: str) -> str:
    """Without control characters that are no blanks, in one line."""
    kept = "".join(c for c in text if c.isspace() or unicodedata.category(c) != "Cc")
    return " ".join(kept.split())


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(CLIPS)
@example([("a\u2028b\x85c\x00d", "x\n\n2\n00:00:01,000 --> 00:00:02,000\ny", "\x00", "a\r\nb")])
@example([("", "", "", ""), ("--\x00>", '"\n"', ";;x y", "k\n1")])
def test_every_format_keeps_its_lines(tmp_path: Path, clips: list[tuple[str, str, str, str]]) -> None:
    rows = [
        clip(
            f"{key}.tar#{number}",
            2.0,
            text=text,
            words=words((word, 0.25, 0.5), ("end", 0.75, 1.0)),
            segments=turns((speaker or "s", 0.0, 1.0), ("s", 1.0, 2.0)),
        )
        for number, (text, word, speaker, key) in enumerate(clips)
    ]
    spoken = [shown(word) for _, word, _, _ in clips]
    files = exported(tmp_path, rows)

    ctm = [line.split() for line in files["ctm"].splitlines()]
    assert all(len(fields) == 6 and not fields[0].startswith((";", "#")) for fields in ctm)
    said = [text.replace(" ", "_") for word in spoken for text in (word, "end") if text]
    assert [fields[4] for fields in ctm] == said

    rttm = [line.split() for line in files["rttm"].splitlines()]
    assert all(len(fields) == 10 and fields[0] == "SPEAKER" for fields in rttm)
    assert len(rttm) == sum(bool(shown(speaker or "s")) + 1 for _, _, speaker, _ in clips)

    for name, pattern in (("srt", r"(\d+)\n\S+ --> \S+\n"), ("vtt", r"(?:NOTE \S+\n\n)?\S+ --> \S+\n")):
        body = files[name].removeprefix("WEBVTT\n\n")
        assert body.split("\n") == body.splitlines() + [""] * body.endswith("\n")
        cues = re.split(rf"^{pattern}", body, flags=re.MULTILINE)
        assert body.count("-->") == len(clips)
        assert len(cues) == len(clips) * (2 if name == "srt" else 1) + 1
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", body)
    texts = re.split(r"\S+ --> \S+\n", files["vtt"])[1:]
    plain = [
        text.split("\n\n")[0].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        for text in texts
    ]
    assert [" ".join(text.split("\n")) for text in plain] == [f"{word} end".strip() for word in spoken]

    grid = files["textgrid"].splitlines()
    assert grid == files["textgrid"].split("\n")[:-1]
    labels = [line.strip() for line in grid if line.strip().startswith(("text = ", "name = "))]
    assert all(re.fullmatch(r'\w+ = "([^"]|"")*"', label) for label in labels)
    assert f'text = "{spoken[0].replace(chr(34), chr(34) * 2)}"' in labels or not spoken[0]

    lines = files["jsonl"].splitlines()
    assert [json.loads(line)["text"] for line in lines] == [text for text, _, _, _ in clips]
    assert [json.loads(line)["words"][0]["word"] for line in lines] == [word for _, word, _, _ in clips]
    assert [json.loads(line)["clip_id"] for line in lines] == [row["clip_id"] for row in rows]


def test_numbers_that_are_none(tmp_path: Path) -> None:
    said = words(("a", 0.0, 0.5), confidence=float("nan")) + words(("b", 0.5, float("inf")))
    row = clip("a.tar#1", float("nan"), text="a b", words=said, duration=float("inf"), extra='{"x": NaN}')
    files = exported(tmp_path, [{**row, "segments": turns(("s", float("-inf"), 1.0), ("t", 0.0, 1.0))}])
    assert files["ctm"] == "a.tar#1 1 0.000 0.500 a NA\n"
    assert files["rttm"] == "SPEAKER a.tar#1 1 0.000 1.000 <NA> <NA> t <NA> <NA>\n"
    read = json.loads(files["jsonl"], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (read["duration"], read["extra"]) == ("nan", {"x": "nan"})


def test_extra_that_is_nested_too_deeply_stays_text(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    read = json.loads(
        exported(tmp_path, [clip("a.tar#1", 1.0, words=[], text="", segments=[], extra=deep)])["jsonl"]
    )
    assert read["extra"] == deep


def test_rows_without_a_clip_id_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{**clip("a#1", 1.0, text="x"), "clip_id": name} for name in (None, "", "a#1")]
    table = write(tmp_path / "table", rows)
    for name in ("jsonl", "srt"):
        done = export(ExportSpec(table=str(table), format=name, output=str(tmp_path / name)))
        assert (done.clips, dict(done.left_out)) == (1, {"without clip_id": 2})


def test_tables_that_python_cannot_read(tmp_path: Path) -> None:
    latin = pa.StringArray.from_buffers(
        1, pa.array([0, 3], pa.int32()).buffers()[1], pa.array([b"mo\xe0"]).buffers()[2]
    )
    pq.write_table(pa.table({"clip_id": latin, "text": ["x"]}), tmp_path / "latin.parquet")
    pq.write_table(pa.table({"clip_id": [1, 2], "text": ["x", "y"]}), tmp_path / "numbers.parquet")
    for name, said in [
        ("latin", "latin.parquet: a value in the column clip_id cannot be read: 'utf-8' codec"),
        ("numbers", "numbers.parquet: the column clip_id must be string, and is int64"),
    ]:
        for kind in ("jsonl", "srt"):
            with pytest.raises(JobError, match=said):
                export(
                    ExportSpec(
                        table=str(tmp_path / f"{name}.parquet"), format=kind, output=str(tmp_path / "out")
                    )
                )
            assert not (tmp_path / "out").exists()
